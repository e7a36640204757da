from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.run_config import Topology
from finetune_api.resolve import resolve
from finetune_operator.plan.observed import LastRun
from finetune_operator.plan.topology import GRAD_ACCUM, build_topology, fit_global_batch
from tests.support.operator_cluster import MINIMAL_SPEC
from tests.support.operator_values import make_config, make_job


def spec_of(**changes: Any) -> Any:
    return resolve({**MINIMAL_SPEC, **changes}).spec


def test_pods_meet_at_pod_0() -> None:
    """Design §5: MASTER_ADDR = pod 0's DNS name; a single pod needs none."""
    job = make_job()
    assert build_topology(job, spec_of(replicas=2), 3) == Topology(
        replicas=2, processes_per_replica=1, device="cpu", master_addr="demo-r3-0.demo-r3.default.svc", master_port=29500
    )
    assert build_topology(job, spec_of(replicas=1), 3).master_addr == "localhost"


def test_ranks_per_pod_follow_the_gpus() -> None:
    topology = build_topology(make_job(), spec_of(replicas=2, resources={"device": "gpu", "gpusPerReplica": 4}), 1)
    assert (topology.processes_per_replica, topology.world_size) == (4, 8)


BEFORE: dict[str, Any] = {"replicas": 4, "training": {"batchSize": 2, "gradAccumSteps": 3}}
"""Global batch 24."""


@pytest.mark.parametrize(
    ("changes", "expected", "problem"),
    [
        ({"replicas": 4, "training": {"batchSize": 2, "gradAccumSteps": 3}}, 3, ""),
        ({"replicas": 2, "training": {"batchSize": 2, "gradAccumSteps": 3}}, 6, ""),
        ({"replicas": 12, "training": {"batchSize": 2, "gradAccumSteps": 3}}, 1, ""),
        ({"replicas": 4, "training": {"batchSize": 6, "gradAccumSteps": 3}}, 1, ""),
        ({"replicas": 2, "training": {"batchSize": 6, "gradAccumSteps": 2}}, 2, ""),
        ({"replicas": 5, "training": {"batchSize": 2, "gradAccumSteps": 3}}, 3, "replicas that keep it with batchSize 2: 3, 4, 6"),
        ({"replicas": 4, "training": {"batchSize": 5, "gradAccumSteps": 3}}, 3, "choose a batchSize that divides 24"),
        ({"replicas": 4, "training": {"batchSize": 2, "gradAccumSteps": 5}}, 5, "changes the global batch from 24 to 40; write 3"),
    ],
)
def test_the_global_batch_is_kept_or_the_edit_refused(changes: dict[str, Any], expected: int, problem: str) -> None:
    """OP-10: batch x accumulation x ranks stays equal; else the nearest valid values are named."""
    fit = fit_global_batch(spec_of(**changes), LastRun(config=make_config(BEFORE), asked={}))
    assert fit.grad_accum_steps == expected
    assert problem in fit.problem
    assert bool(fit.problem) == bool(problem)


def test_what_was_asked_for_is_told_from_what_was_derived() -> None:
    """A run with derived accumulation (6 for 3) and back again: 3 is what the user wrote, not an edit."""
    resized = make_config({"replicas": 2, "training": {"batchSize": 2, "gradAccumSteps": 6}})
    fit = fit_global_batch(spec_of(**BEFORE), LastRun(config=resized, asked={GRAD_ACCUM: 3}))
    assert (fit.grad_accum_steps, fit.problem) == (3, "")


def test_a_first_run_has_nothing_to_fit_to() -> None:
    assert fit_global_batch(spec_of(**BEFORE), None).grad_accum_steps == 3
