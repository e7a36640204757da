from __future__ import annotations

import pytest

from finetune_operator.plan.unschedulable import describe_missing


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        (
            "0/5 nodes are available: 1 node(s) had untolerated taint {gpu: true}, 4 Insufficient nvidia.com/gpu. preemption: 0/5 nodes",
            "Missing: a toleration of {gpu: true} (1 node), nvidia.com/gpu (4 nodes). ",
        ),
        ("0/2 nodes are available: 2 Insufficient memory.", "Missing: memory (2 nodes). "),
        (
            "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector.",
            "Missing: nodes that are not cordoned (1 node), the labels of resources.nodeSelector (2 nodes). ",
        ),
        ("no nodes available to schedule pods", ""),
    ],
)
def test_what_is_missing_comes_first(message: str, missing: str) -> None:
    """P-01, L-06: the sentence names the resource, taint or label; the scheduler's own words follow."""
    assert describe_missing(message) == missing + message
