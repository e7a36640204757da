"""Builders of the values decisions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from finetune_api.contract.run_config import RunConfig
from finetune_api.models.status import AttemptStatus, FineTuneJobStatus
from finetune_api.resolve import resolve
from finetune_operator.plan.observed import JobObject, Pod, Workload
from finetune_operator.plan.run_config import build_run_config
from tests.support.fake_api import START
from tests.support.operator_cluster import MINIMAL_SPEC, NAMESPACE, SETTINGS

NOW = START


def make_job(spec: Mapping[str, Any] | None = None, *, status: FineTuneJobStatus | None = None, **changes: Any) -> JobObject:
    """A job as read from the API server."""
    values: dict[str, Any] = {
        "namespace": NAMESPACE,
        "name": "demo",
        "uid": "uid-job",
        "generation": 1,
        "resource_version": "1",
        "created_at": NOW,
        "spec": {**MINIMAL_SPEC, **(spec or {})},
        "status": status or FineTuneJobStatus(),
    }
    return JobObject(**{**values, **changes})


def make_config(spec: Mapping[str, Any] | None = None, *, run: int = 1) -> RunConfig:
    """The run config of a job."""
    job = make_job(spec)
    return build_run_config(job, resolve(job.spec).spec, run, SETTINGS)


def make_pod(index: int = 0, **changes: Any) -> Pod:
    """A trainer pod of run 1."""
    values: dict[str, Any] = {
        "name": f"demo-r1-{index}",
        "uid": f"uid-pod-{index}",
        "owner_name": "demo-r1",
        "owner_uid": "uid-run",
        "component": "trainer",
        "run": 1,
        "index": index,
        "node": "node-1",
        "phase": "Running",
        "ready": True,
        "scheduled": True,
        "started": True,
    }
    return Pod(**{**values, **changes})


def ended_pod(index: int = 0, *, code: int | None = 1, seconds: float = 0.0, **changes: Any) -> Pod:
    """A pod whose container has ended."""
    finished = NOW + timedelta(seconds=seconds)
    return make_pod(index, **{"phase": "Failed", "ended": True, "ready": False, "exit_code": code, "finished_at": finished, **changes})


def make_workload(**changes: Any) -> Workload:
    """The Job of run 1."""
    return Workload(**{"name": "demo-r1", "uid": "uid-run", "component": "trainer", "created_at": NOW, **changes})


def running_status(**changes: Any) -> FineTuneJobStatus:
    """The status of a job whose run 1 is under way."""
    attempt = AttemptStatus(run=1, reason="Created", started_at="2026-11-21T08:00:00Z")
    return FineTuneJobStatus(
        run=1, attempts=[attempt], attempt_count=1, last_replicas=1, output_uri="s3://finetune/default/demo/uid-job"
    ).model_copy(update=changes)
