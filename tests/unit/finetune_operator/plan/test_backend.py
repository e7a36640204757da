"""The condition OptimizedBackend: what the trainer found of ``training.backend: optimized`` (B-12)."""

from __future__ import annotations

import pytest

from finetune_api.models.status import ConditionType
from tests.support.operator_cluster import FakeCluster

PARTS = {"backend": "optimized", "backendParts": "attention without padding, fused optimizer"}


@pytest.mark.parametrize(
    ("facts", "condition", "said"),
    [
        ({}, None, ""),
        ({**PARTS, "backendMissing": ""}, ("True", "AllPartsInUse"), "In use: attention without padding, fused optimizer."),
        (
            {**PARTS, "backendMissing": "fused layer kernels: liger-kernel is not in the image"},
            ("False", "PartsMissing"),
            "In use: attention without padding, fused optimizer. Without fused layer kernels: liger-kernel is not in the image.",
        ),
    ],
)
async def test_what_cannot_be_had_is_said(facts: dict[str, str], condition: tuple[str, str] | None, said: str) -> None:
    """False with the reason where a part is missing; the job trains all the same, and what the backend changed shows with its source."""
    cluster = FakeCluster()
    cluster.facts |= facts
    cluster.create({"training": {"backend": "optimized" if facts else "standard"}})
    await cluster.until(lambda: cluster.phase == "Training", train=25)
    await cluster.train(1)
    await cluster.reconcile()
    assert cluster.condition(ConditionType.OPTIMIZED_BACKEND) == condition
    found = next((c.message for c in cluster.status.conditions if c.type == ConditionType.OPTIMIZED_BACKEND), "")
    assert found == said
    packing = cluster.status.resolved["dataset.packing"]
    assert (packing.value, packing.source) == (("true", "backend") if facts else ("false", "default"))
