"""FineTuneJob objects as the API server returns them, for the command line's tests."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from finetune_cli.job import Job

CREATED = "2026-11-01T12:00:00Z"


def make_document(phase: str = "Training", *, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """A job in a phase; further keywords are status fields in camelCase."""
    return {
        "metadata": {
            "name": "demo",
            "namespace": "team",
            "uid": "u-1",
            "generation": 2,
            "resourceVersion": "10",
            "creationTimestamp": CREATED,
        },
        "spec": {
            "model": {"uri": "s3://finetune/models/tiny"},
            "dataset": {"uri": "configmap://sft/train.jsonl"},
            "replicas": 1,
            **(spec or {}),
        },
        "status": {"phase": phase, "observedGeneration": 2, **status},
    }


def make_job(phase: str = "Training", *, spec: dict[str, Any] | None = None, **status: Any) -> Job:
    """The same, read."""
    return Job.of(make_document(phase, spec=spec, **status))


def make_progress(step: int, total: int = 120, **more: Any) -> dict[str, Any]:
    """status.progress at a step."""
    return {"step": step, "totalSteps": total, "percent": 100 * step // total, **more}


def make_checkpoint(step: int, **more: Any) -> dict[str, Any]:
    """A ledger entry."""
    return {
        "step": step,
        "attempt": 1,
        "uri": f"s3://finetune/demo/a1/checkpoint-{step}",
        "sizeBytes": 3_100_000,
        "createdAt": CREATED,
        "trigger": "steps",
        **more,
    }


def recording_console(*, terminal: bool = False, width: int = 160) -> Console:
    """A console that keeps what was printed (``export_text``) and shows nothing."""
    return Console(record=True, file=io.StringIO(), force_terminal=terminal, width=width)
