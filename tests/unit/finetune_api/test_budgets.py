"""Budgets: what may be written in one, and the arithmetic of what jobs may cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, BUDGET_KIND
from finetune_api.crd import budget
from finetune_api.documents import validate_document
from finetune_api.duration import Work, training_seconds
from finetune_api.pricing import Billing, cost_range, shown
from finetune_api.problems import SpecError
from finetune_api.resolve import resolve

CREDIT = {"amount": "10.00", "at": "2026-11-01T09:00:00Z"}


def document(spec: dict[str, Any], name: str = "default") -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": BUDGET_KIND, "metadata": {"name": name}, "spec": spec}


def test_two_entries_of_one_time_are_refused() -> None:
    """O-10: entries are told apart by their times, so that what was given is never given again by an apply."""
    with pytest.raises(SpecError, match="2 entries have this time"):
        validate_document(document({"credits": [CREDIT, {**CREDIT, "amount": "5.00"}]}))
    validate_document(document({"credits": [CREDIT, {**CREDIT, "at": "2026-11-01T09:00:01Z"}]}))


def test_credits_are_merged_by_time_and_only_added() -> None:
    """O-10: two who top up at once do not undo each other; nobody takes anything back."""
    given = budget()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["credits"]
    assert (given["x-kubernetes-list-type"], given["x-kubernetes-list-map-keys"]) == ("map", ["at"])
    assert "oldSelf" in given["x-kubernetes-validations"][0]["rule"]


def test_the_range_of_the_requirement() -> None:
    """AC-78, O-03: 2.00 an hour, 3600 s of training and the five overheads of 600 s."""
    low, high = cost_range(3600, "2.00", 1, Billing())
    assert (shown(low), shown(high)) == ("2.3333", "3.0333")


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_cost_grows_with_gpus_and_upper_is_lower_with_headroom(gpus: int) -> None:
    """O-05, AC-52."""
    low, high = cost_range(1000, "3.60", gpus, Billing())
    assert low == cost_range(1000, "3.60", 1, Billing()).low * gpus
    assert high == low * Decimal("1.3")


def seconds(**spec: Any) -> float | None:
    whole = {"model": {"uri": "hf://org/m"}, "dataset": {"uri": "hf://org/d"}, **spec}
    return training_seconds(resolve(whole).spec, Work(10, 2, 2, 10**9, None), tflops=100, utilization=0.5)


def test_length_follows_what_is_computed() -> None:
    """O-01: rows, tokens, steps and model; whole models cost more than adapters, generating methods cannot be reckoned."""
    training = {"batchSize": 4, "gradAccumSteps": 2, "maxSeqLength": 512}
    lora = seconds(training=training)
    assert lora is not None
    assert lora == pytest.approx(10 * 16 * 512 * 6e9 / (2 * 100e12 * 0.5))
    assert seconds(training=training, adapter={"type": "full"}) == pytest.approx(lora * 8 / 6)
    assert seconds(training=training, method="grpo") is None
