"""How long a training is reckoned to take, from the lengths that are known of its rows (O-01, X09)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.duration import Work, training_seconds
from finetune_api.resolve import resolve
from tests.support.jobs import merge

WORK = Work(steps=10, ranks=2, gpus=2, parameters=10**9, tokens=None)
ROWS = 10 * 16
"""Of ten steps: batchSize 4 x gradAccumSteps 2 x 2 ranks."""


def seconds(work: Work, **changes: Any) -> float | None:
    job = {
        "model": {"uri": "hf://org/m"},
        "dataset": {"uri": "hf://org/d"},
        "training": {"batchSize": 4, "gradAccumSteps": 2, "maxSeqLength": 0},
    }
    return training_seconds(resolve(merge(job, changes)).spec, work, tflops=100, utilization=0.5)


def reckoned(tokens: int) -> Any:
    """Seconds of ``ROWS`` sequences of so many tokens on two GPUs of 100 TFLOPS, half used."""
    return pytest.approx(ROWS * tokens * 6 * 10**9 / (2 * 100e12 * 0.5))


def test_the_model_s_context_is_not_nothing() -> None:
    """A Budget reserves for maxSeqLength 0 what such sequences cost: 8192 tokens at most, fewer for a shorter context."""
    assert seconds(WORK) == reckoned(8192)
    assert seconds(WORK._replace(longest=2048)) == reckoned(2048)


def test_rows_that_were_counted_are_taken() -> None:
    """Packed rows fill the sequence all the same; longer ones are cut."""
    counted = WORK._replace(tokens=300)
    assert seconds(counted) == reckoned(300)
    assert seconds(counted, training={"maxSeqLength": 256}) == reckoned(256)
    assert seconds(counted, dataset={"packing": True}) == reckoned(8192)
    assert seconds(counted, training={"longContext": True}) == reckoned(300)


def test_what_is_not_known_is_not_reckoned() -> None:
    """All of an unknown context."""
    assert seconds(WORK, training={"longContext": True}) is None
    assert seconds(WORK._replace(longest=16384), training={"longContext": True}) == reckoned(16384)


def test_methods_differ_in_passes() -> None:
    """A row of dpo is two sequences and a reference, one of reward two; of grpo nothing is said."""
    sft = seconds(WORK)
    assert sft is not None
    assert seconds(WORK, method="dpo") == pytest.approx(3 * sft)
    assert seconds(WORK, method="reward") == pytest.approx(2 * sft)
    assert seconds(WORK, method="grpo") is None
