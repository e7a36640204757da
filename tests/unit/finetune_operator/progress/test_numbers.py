from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.contract.progress import FineTuneProgress, Finished, KubeflowMetric, ProgressPost, TrainerStatus
from finetune_api.models.status import StatusProgress
from finetune_operator.plan.report import Merged
from finetune_operator.progress.numbers import patch_of, progress_of, same_numbers
from tests.support.manifests import ROOT

NOW = "2026-11-21T08:00:00Z"


def post(stock: dict[str, Any] | None = None, **ours: Any) -> ProgressPost:
    status = TrainerStatus(**{"last_updated_time": NOW, **(stock or {})})
    return ProgressPost(
        trainer_status=status, finetune=FineTuneProgress(**{"contract_version": 1, "run": 1, "attempt": 1, "phase": "Training", **ours})
    )


def read(body: ProgressPost, before: StatusProgress | None = None) -> StatusProgress:
    return progress_of(body, Merged(), before=before, run=1, now=NOW)


def test_our_own_post() -> None:
    """T-04: step, total, steps left, percent, losses, speed and ETA, numbers short."""
    progress = read(post(step=250, total_steps=1000, epoch=0.123456, loss=1.23456789, tokens_per_second=1234.56789, step_seconds=0.5))
    assert progress.model_dump(exclude_none=True) == {
        "run": 1, "attempt": 1, "phase": "Training", "step": 250, "total_steps": 1000, "steps_remaining": 750, "percent": 25,
        "epoch": 0.1235, "loss": 1.23457, "tokens_per_second": 1235.0, "eta_seconds": 375, "eta": "6m", "updated_at": NOW, "report": "{}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (4980, "1h23m"), (3600 * 47, "47h00m"), (86400 * 3 + 14400, "3d4h")],
)
def test_eta_for_people(seconds: int, words: str) -> None:
    assert read(post({"estimated_remaining_seconds": seconds})).eta == words


def test_finished_is_all_of_it() -> None:
    """Early stopping ends before the last planned step."""
    progress = read(post(step=40, total_steps=100, finished=Finished(step=40, final_uri="s3://b/f", source="best")))
    assert (progress.percent, progress.steps_remaining) == (100, 0)


def test_steps_left_are_not_known_before_the_total_is() -> None:
    """T-04: of our own trainer as of a stock client."""
    assert read(post()).steps_remaining is None
    stock = TrainerStatus(last_updated_time=NOW, metrics=[KubeflowMetric(name="step", value="3")])
    assert read(ProgressPost(trainer_status=stock)).steps_remaining is None
    assert read(ProgressPost(trainer_status=stock), StatusProgress(run=1, total_steps=10)).steps_remaining == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_left_out(value: float) -> None:
    assert read(post(loss=value)).loss is None


def test_a_stock_client_says_little_and_the_rest_stays() -> None:
    """Wire-compatible with Kubeflow Trainer's protocol."""
    stock = TrainerStatus(
        last_updated_time=NOW,
        progress_percentage=40,
        estimated_remaining_seconds=120,
        metrics=[
            KubeflowMetric(name="loss", value="0.5"),
            KubeflowMetric(name="global_step", value="12"),
            KubeflowMetric(name="odd", value="n/a"),
        ],
    )
    before = StatusProgress(run=1, attempt=3, step=10, loss=0.7, grad_norm=1.5)
    progress = read(ProgressPost(trainer_status=stock), before)
    assert (progress.attempt, progress.percent, progress.step, progress.loss, progress.grad_norm, progress.eta) == (
        3,
        40,
        12,
        0.5,
        1.5,
        "2m",
    )


def test_transformers_own_callback_is_understood() -> None:
    """Issue 5: stock Trainers report unchanged. The posts are those of transformers 5.23's KubeflowCallback, first to last."""
    posts = [ProgressPost.model_validate(each) for each in json.loads((ROOT / "tests/data/kubeflow/transformers.json").read_text())]
    seen: list[StatusProgress] = []
    for each in posts:
        seen.append(read(each, seen[-1] if seen else None))
    assert [(each.step, each.total_steps, each.percent) for each in seen[:3]] == [(0, 20, 0), (1, 20, 5), (1, 20, 5)]
    last = seen[-1]
    assert (last.step, last.percent, last.epoch, last.loss, last.eval_loss) == (20, 100, 2.0, 1.5, 1.75)
    assert (last.grad_norm, last.learning_rate, last.eta) == (1.25, 0.0002, "0s")
    assert last.metrics is not None
    assert last.metrics["mean_token_accuracy"] == 0.61
    assert "current_step" not in last.metrics


@pytest.mark.parametrize("value", ["nan", "inf", "-", ""])
def test_a_stock_metric_that_is_no_number_is_left_out(value: str) -> None:
    stock = TrainerStatus(last_updated_time=NOW, metrics=[KubeflowMetric(name="loss", value=value)])
    assert read(ProgressPost(trainer_status=stock)).loss is None


def test_many_stock_metrics_are_cut() -> None:
    """Every byte of a status is paid for by etcd."""
    metrics = [KubeflowMetric(name="x" * 200 + str(index), value="1") for index in range(300)]
    metrics += [KubeflowMetric(name=f"m{index}", value="1") for index in range(300)]
    progress = read(ProgressPost(trainer_status=TrainerStatus(last_updated_time=NOW, metrics=metrics[280:])))
    assert progress.metrics is not None
    assert (len(progress.metrics), max(map(len, progress.metrics))) == (16, 64)


def test_an_earlier_run_s_numbers_do_not_stay() -> None:
    stock = TrainerStatus(last_updated_time=NOW, progress_percentage=1)
    progress = progress_of(ProgressPost(trainer_status=stock), Merged(), before=StatusProgress(run=1, grad_norm=1.5), run=2, now=NOW)
    assert (progress.run, progress.grad_norm) == (2, None)


def test_absent_values_are_written_as_null() -> None:
    """A merge patch would leave those of an earlier attempt."""
    assert patch_of(read(post()))["evalLoss"] is None


def test_a_later_time_alone_is_nothing_new() -> None:
    one = read(post(step=1))
    assert same_numbers(one, one.model_copy(update={"updated_at": "later"}))
    assert not same_numbers(one, read(post(step=2)))
    assert not same_numbers(None, one)
