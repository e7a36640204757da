"""Objects the API server does not take: said in the status, tried again, and nothing half made."""

from __future__ import annotations

import pytest

from finetune_operator.cluster.errors import ApiError, ForbiddenError, InvalidError
from tests.support.fake_api import Call
from tests.support.operator_cluster import FakeCluster

INVALID = InvalidError(422, "Invalid", 'Job.batch "demo-r1" is invalid: spec.template.labels: Invalid value: "a b"')
QUOTA = ForbiddenError(403, "Forbidden", "exceeded quota: jobs, requested: count/jobs.batch=1, used: 5, limited: 5")


def refuse_jobs(cluster: FakeCluster, error: ApiError) -> None:
    def fault(call: Call, moment: str) -> None:
        if moment == "before" and call.method == "POST" and call.path.endswith("/jobs"):
            raise error

    cluster.api.fault = fault


@pytest.mark.parametrize("error", [INVALID, QUOTA], ids=["invalid", "quota"])
async def test_a_refused_run_is_explained_and_tried_again(error: ApiError) -> None:
    """A sentence instead of errors in the operator's log; the run starts once the cause is gone."""
    cluster = FakeCluster()
    refuse_jobs(cluster, error)
    cluster.create()
    await cluster.reconcile()
    assert (cluster.phase, cluster.status.reason, cluster.status.run) == ("Pending", "RefusedByCluster", 0)
    ready = next(c for c in cluster.status.conditions if c.type == "Ready")
    assert error.message in ready.message
    assert cluster.condition("Stalled") == ("True", "RefusedByCluster")
    written = cluster.api._version
    await cluster.reconcile()
    assert cluster.api._version == written, "an unchanged refusal writes nothing"
    cluster.api.fault = None
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.run == 1
