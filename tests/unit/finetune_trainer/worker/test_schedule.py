"""The arithmetic of steps, epochs, warm-up and intervals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from finetune_api.length import total_steps
from finetune_api.resolve import resolve
from finetune_trainer.worker.schedule import Schedule, make_schedule
from tests.unit.finetune_trainer.worker.conftest import MakeSpec


def schedule(make_spec: MakeSpec, rows: int = 1000, ranks: int = 1, eval_rows: int = 0, **blocks: Any) -> Schedule:
    """Schedule of a spec."""
    return make_schedule(make_spec(**blocks), train_rows=rows, eval_rows=eval_rows, world_size=ranks)


@pytest.mark.parametrize(("ranks", "steps"), [(1, 750), (2, 375)])
def test_steps_of_a_run(make_spec: MakeSpec, ranks: int, steps: int) -> None:
    """AC-73: 1000 rows, batch 4, accumulation 1, 3 epochs."""
    assert schedule(make_spec, ranks=ranks, training={"batchSize": 4, "gradAccumSteps": 1, "epochs": 3}).total_steps == steps


def test_defaults_of_001(make_spec: MakeSpec) -> None:
    """AC-74: 1000 rows, batch 2 x 4, 2 epochs, warm-up 0.1: 250 steps, 25 of warm-up, checkpoints at 100 and 200, and the last one."""
    plan = schedule(make_spec)
    assert (plan.total_steps, plan.warmup_steps, plan.global_batch, plan.stop_by) == (250, 25, 8, "epochs")
    assert {step: plan.save_due(step) for step in range(1, 251) if plan.save_due(step)} == {100: "steps", 200: "steps", 250: "final"}


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (1, 8)])
def test_effective_batch(make_spec: MakeSpec, batch: int, accumulation: int) -> None:
    """AC-15: 8 in both."""
    assert schedule(make_spec, training={"batchSize": batch, "gradAccumSteps": accumulation}).global_batch == 8


@pytest.mark.parametrize(
    ("max_steps", "mode", "expected"),
    [
        (-1, "override", (250, "epochs")),
        (100, "override", (100, "steps")),
        (900, "override", (900, "steps")),
        (100, "cap", (100, "steps")),
        (900, "cap", (250, "epochs")),
    ],
)
def test_steps_win_over_epochs(max_steps: int, mode: Any, expected: tuple[int, str]) -> None:
    """AC-18, X07: more than 0 replaces the epochs, or only bounds them with maxStepsMode cap."""
    assert total_steps(250, max_steps, mode) == expected


@pytest.mark.parametrize(
    ("training", "warmup"),
    [
        ({"warmupSteps": 50, "warmupRatio": 0.1}, 50),
        ({"warmupSteps": 0, "warmupRatio": 0.1}, 25),
        ({"warmupSteps": 9999}, 250),
        ({"warmupRatio": 0}, 0),
        ({"warmupRatio": 0.1, "maxSteps": 30}, 3),
        ({"warmupRatio": 0.1, "maxSteps": 31}, 4),
        ({"warmupSteps": 50, "lrScheduler": "constant"}, 0),
    ],
)
def test_warmup(make_spec: MakeSpec, training: dict[str, Any], warmup: int) -> None:
    """AC-17, F-27: steps above 0 win over the ratio; a constant rate has none; 30 x 0.1 is 3."""
    assert schedule(make_spec, training=training).warmup_steps == warmup


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "cosine_with_restarts", "constant_with_warmup"])
def test_warmup_rises_from_0_to_the_set_rate(make_spec: MakeSpec, scheduler: str) -> None:
    """F-28: linearly, with the library's schedules: the first step is made with 0 exactly, the first after the warm-up with the rate."""
    plan = schedule(make_spec, training={"lrScheduler": scheduler, "warmupRatio": 0.1})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
    shape = get_scheduler(scheduler, optimizer, num_warmup_steps=plan.warmup_steps, num_training_steps=plan.total_steps)
    rates = []
    for _ in range(plan.warmup_steps + 1):
        rates += shape.get_last_lr()
        optimizer.step()
        shape.step()
    assert (rates[0], rates[plan.warmup_steps]) == (0.0, 3e-4)
    assert rates == pytest.approx([3e-4 * step / plan.warmup_steps for step in range(plan.warmup_steps + 1)])


def test_evaluations(make_spec: MakeSpec) -> None:
    """Periodic ones and the final one; without data there is none (S-01, S-04)."""
    blocks: dict[str, Any] = {"evaluation": {"strategy": "steps", "steps": 100}, "dataset": {"evalRatio": 0.1}}
    due = schedule(make_spec, eval_rows=10, **blocks)
    assert [step for step in range(1, 251) if due.is_evaluation_due(step)] == [100, 200, 250]
    per_epoch = schedule(make_spec, eval_rows=10, evaluation={"strategy": "epoch", "final": False}, dataset={"evalRatio": 0.1})
    assert [step for step in range(1, 251) if per_epoch.is_evaluation_due(step)] == [125, 250]
    assert not any(schedule(make_spec).is_evaluation_due(step) for step in range(1, 251))


@pytest.mark.parametrize(("strategy", "saves"), [("epoch", {125: "epoch", 250: "final"}), ("no", {})])
def test_save_strategies(make_spec: MakeSpec, strategy: str, saves: dict[int, str]) -> None:
    """R-01: epoch saves at each epoch's end, no never."""
    plan = schedule(make_spec, checkpoint={"strategy": strategy})
    assert {step: plan.save_due(step) for step in range(1, 251) if plan.save_due(step)} == saves


@given(rows=st.integers(1, 5000), batch=st.sampled_from([1, 2, 4]), accumulation=st.sampled_from([4, 8, 16]))
def test_only_the_global_batch_counts(rows: int, batch: int, accumulation: int) -> None:
    """The same rows per step on any number of ranks: the same steps."""

    def spread(batch: int, accumulation: int, ranks: int) -> Schedule:
        training = {"batchSize": batch, "gradAccumSteps": accumulation}
        job = {"model": {"uri": "s3://b/m"}, "dataset": {"uri": "configmap://r/t.jsonl"}, "training": training}
        return make_schedule(resolve(job).spec, train_rows=rows, eval_rows=0, world_size=ranks)

    one = spread(batch * accumulation, 1, 1)
    assert one == spread(batch, accumulation, 1) == spread(batch, accumulation // 2, 2) == spread(batch, accumulation // 4, 4)
