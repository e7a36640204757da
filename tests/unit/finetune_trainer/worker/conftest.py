"""Specs for tests of a worker's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_trainer.worker.schedule import Schedule

SCHEDULE = Schedule(
    total_steps=20,
    steps_per_epoch=8,
    warmup_steps=2,
    global_batch=4,
    stop_by="steps",
    evaluate_every=6,
    save_every=5,
    save_trigger="steps",
    evaluate_at_end=True,
    save_at_end=True,
)
"""20 steps; a save every fifth, an evaluation every sixth."""

MakeSpec: TypeAlias = Callable[..., FineTuneJobSpec]


@pytest.fixture
def make_spec() -> MakeSpec:
    """Resolve a spec from its blocks."""

    def make(method: str = "sft", **blocks: Mapping[str, Any]) -> FineTuneJobSpec:
        job: dict[str, Any] = {
            "model": {"uri": "s3://bucket/model"},
            "dataset": {"uri": "configmap://rows/train.jsonl"},
            "resources": {"device": "cpu"},
            "method": method,
        }
        return resolve({**job, **{name: {**job.get(name, {}), **block} for name, block in blocks.items()}}).spec

    return make
