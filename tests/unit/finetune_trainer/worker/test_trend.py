"""When a training loss rises, and when it has diverged (F-13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_api.resolve import resolve
from finetune_trainer.worker.trend import Trend, describe, is_judged
from tests.support.jobs import make_job

Curve = Callable[[np.random.Generator, NDArray[np.float64]], NDArray[np.float64]]


def follow(losses: Iterable[float], trend: Trend | None = None, first: int = 1) -> list[Trend]:
    """The trend after each step."""
    trends = [trend or Trend()]
    for step, loss in enumerate(losses, start=first):
        trends.append(trends[-1].after(step, float(loss)))
    return trends[1:]


def first_step(trends: list[Trend], is_so: Callable[[Trend], bool]) -> int | None:
    """The first step of which something is true."""
    return next((step for step, trend in enumerate(trends, start=1) if is_so(trend)), None)


def test_a_clear_divergence() -> None:
    """A loss at 1.2 that goes to 8 and stays: told after two blocks, a divergence after three, and it was steady before the first."""
    trends = follow([1.2] * 200 + [8.0] * 200)
    assert first_step(trends, lambda trend: trend.has_risen) == 300
    assert first_step(trends, lambda trend: trend.has_diverged) == 350
    assert trends[349].steady_until == 200


def test_the_message_says_what_to_do() -> None:
    """F-12 F-13: rate, usual band, and the step up to which checkpoints are good."""
    spec = resolve(make_job("demo", {"training": {"learningRate": 2e-3}})["spec"]).spec
    trends = follow([1.2] * 100 + [8.0] * 100)
    said = describe(trends[-1], spec)
    assert "stands at 8, its best 50 steps at 1.2, and it was steady until step 100" in said
    assert "training.learningRate (0.002; usual with adapter.type lora are 0.0001 to 0.0005)" in said
    assert describe(trends[100], spec) == ""


def test_a_resumed_run_judges_as_one_that_never_stopped() -> None:
    """State goes through JSON at every step of the way, difference 0.0."""
    rng = np.random.default_rng(1)
    losses = [*(2 + rng.normal(0, 0.5, 130)), *(9 + rng.normal(0, 0.5, 170))]
    whole = follow(losses)
    for stop in range(1, len(losses), 7):
        again = Trend.model_validate_json(whole[stop - 1].to_json())
        assert follow(losses[stop:], again, first=stop + 1)[-1] == whole[-1]


def test_a_loss_that_falls_again_is_left_to_recover() -> None:
    """It is told, and ends nothing; nor does one that is only somewhat higher."""
    recovering = follow([1.0] * 100 + list(np.linspace(9, 3, 300)) + [1.5] * 100)
    assert any(trend.has_risen for trend in recovering)
    assert not any(trend.has_diverged for trend in recovering)
    assert not recovering[-1].has_risen
    somewhat = follow([1.0] * 100 + [3.5] * 1000)
    assert somewhat[-1].has_risen
    assert not any(trend.has_diverged for trend in somewhat)


def test_an_edited_schedule_gets_its_chance() -> None:
    """Rates lowered on a stopped job: what rose before counts no more, the best level does."""
    high = follow([1.0] * 100 + [8.0] * 120)[-1]
    assert high.has_risen
    again = follow([8.0] * 149, high.forgiving(), first=221)
    assert not any(trend.has_diverged for trend in again)
    assert again[-1].after(370, 8.0).has_diverged


CURVES: dict[str, Curve] = {
    "falling from scratch": lambda rng, step: 3 + 8 * np.exp(-step / 400) + rng.normal(0, 0.4, len(step)),
    "single rows": lambda rng, step: 1.8 * rng.lognormal(0, 0.6, len(step)),
    "heavy tails": lambda rng, step: 1 + np.abs(rng.standard_t(2, len(step))),
    "wild rows": lambda rng, step: np.where(rng.random(len(step)) < 0.02, 500.0, 1.0) + rng.normal(0, 0.1, len(step)),
    "two kinds of data, one step each": lambda rng, step: np.where(rng.random(len(step)) < 0.5, 0.1, 5.0),
    "two kinds of data, mostly the hard one": lambda rng, step: np.where(rng.random(len(step)) < 0.3, 0.1, 5.0),
    "learnt by heart, epoch by epoch": lambda rng, step: 2.0 / (1 + step // 500) * rng.lognormal(0, 0.3, len(step)),
    "a restart of the rates every 1000 steps": lambda rng, step: 1.5 + 0.3 * (1 - step % 1000 / 1000) + rng.normal(0, 0.2, len(step)),
    "warm-up": lambda rng, step: 2.5 - 0.8 * np.minimum(step / 300, 1) + rng.normal(0, 0.3, len(step)),
}


TWO_KINDS = "two kinds of data, one step each", "two kinds of data, mostly the hard one"
"""Of which a warning may come and go."""


@pytest.mark.parametrize("name", CURVES)
def test_no_ordinary_course_is_taken_for_a_divergence(name: str) -> None:
    """Five runs of 5,000 steps of each: a false alarm would end a week's work."""
    for seed in range(5):
        trends = follow(CURVES[name](np.random.default_rng(seed), np.arange(5_000.0)))
        assert first_step(trends, lambda trend: trend.has_diverged) is None
        assert name in TWO_KINDS or first_step(trends, lambda trend: trend.has_risen) is None


@pytest.mark.parametrize(("method", "judged"), [("sft", True), ("pretrain", True), ("dpo", False), ("grpo", False), ("kto", False)])
def test_losses_of_preferences_and_rewards_are_not_judged(method: str, judged: bool) -> None:
    """GRPO's loss begins at zero and rises with the distance to the reference."""
    assert is_judged(resolve(make_job("demo", {"method": method})["spec"]).spec) is judged
