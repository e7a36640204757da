"""budget, topup and approve on the command line, and what plan says of costs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_cli.__main__ import app
from finetune_cli.actions import build_approve
from finetune_cli.budgets import build_credit, raised_quota, render_budget
from finetune_cli.errors import CliError
from tests.unit.finetune_cli.builders import make_job, recording_console

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
BUDGET: dict[str, Any] = {
    "spec": {"currency": "USD", "credits": [], "approvalAbove": "5"},
    "status": {
        "credited": "10.0000", "settled": "2.0000", "reserved": "1.5000", "balance": "8.0000", "jobs": 2,
        "closedRateSeconds": "3600",
        "shares": {
            "u1": {"name": "cheap", "run": 1, "generation": 1, "rateSeconds": "360"},
            "u2": {"name": "dear", "run": 2, "generation": 1, "before": "3600", "rateSeconds": "7200", "limit": "3.5000"},
        },
    },
}  # fmt: skip
JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  model: {uri: "ref:qwen2.5-3b-instruct"}
  dataset: {uri: hf://org/rows}
  training: {maxSteps: 100}
  resources: {gpuType: h100}
---
apiVersion: finetune.dev/v1alpha1
kind: GpuType
metadata: {name: h100}
spec: {memory: 80Gi, hourlyRate: "2.50", tflops: 989}
"""


def test_a_budget_as_people_read_it() -> None:
    """O-10, AA-03: what is left, what is reserved, and what each job has cost, deleted ones too."""
    console = recording_console()
    console.print(render_budget(BUDGET))
    text = console.export_text()
    assert "free for new jobs 6.5000" in text
    assert "more than 5 USD" in text
    rows = [line.split() for line in text.splitlines()[-3:]]
    assert rows == [["dear", "1.0000", "1.5000", "0"], ["cheap", "0.1000", "0.0000", "0"], ["(deleted", "jobs)", "1.0000", "0.0000", "0"]]


def test_a_quota_as_people_read_it() -> None:
    """O-14: how many checkpoints are written, reserved and free, and by which jobs."""
    share = {"name": "demo", "run": 1, "generation": 1, "checkpointsBefore": 2, "checkpoints": 7, "checkpointLimit": 10}
    status = {"checkpoints": 6, "checkpointsReserved": 3, "closedCheckpoints": 1, "shares": {"u": share}}
    console = recording_console()
    console.print(render_budget({"spec": {**BUDGET["spec"], "checkpointQuota": 20}, "status": status}))
    text = console.export_text()
    assert "checkpoints 6 of 20 written; reserved 3; free for new jobs 11" in text
    assert [line.split()[-1] for line in text.splitlines()[-2:]] == ["5", "1"]


def test_a_quota_is_raised_from_what_it_is() -> None:
    """O-14: two who raise it at once do not undo each other; what cannot be raised is said."""
    patch = raised_quota({"spec": {"checkpointQuota": 20}}, 5)
    assert patch == [
        {"op": "test", "path": "/spec/checkpointQuota", "value": 20},
        {"op": "replace", "path": "/spec/checkpointQuota", "value": 25},
    ]
    with pytest.raises(CliError, match="at least 1"):
        raised_quota({"spec": {"checkpointQuota": 20}}, 0)
    with pytest.raises(CliError, match=r"no spec\.checkpointQuota"):
        raised_quota({"spec": {}}, 5)


def test_a_top_up_adds_something() -> None:
    """O-10."""
    result = CliRunner().invoke(app, ["topup"])
    assert result.exit_code != 0


def test_a_top_up_is_an_entry_with_its_time() -> None:
    """O-10."""
    assert build_credit("250.00", "Q4", NOW) == {"amount": "250.00", "at": "2026-11-22T09:30:00Z", "note": "Q4"}


@pytest.mark.parametrize("amount", ["-1", "1,50", "0.12345", "all"])
def test_an_amount_is_a_decimal_number(amount: str) -> None:
    """OP-21."""
    with pytest.raises(CliError, match="four places"):
        build_credit(amount, None, NOW)


def test_approve_is_for_jobs_that_wait_for_it() -> None:
    """O-07."""
    patch = build_approve(make_job(phase="AwaitingApproval"), "t")
    assert patch == {"metadata": {"annotations": {"finetune.dev/request": "approve/t"}}}
    with pytest.raises(CliError, match="AwaitingApproval"):
        build_approve(make_job(phase="Training"), "t")


def test_plan_says_what_a_job_may_cost(tmp_path: Path) -> None:
    """O-01 to O-03: with the price and arithmetic of the GpuType, the size of the BaseModel and the constants of the chart."""
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    result = CliRunner().invoke(app, ["plan", "-f", str(file)])
    assert result.exit_code == 0, result.output
    assert "Cost: 0." in result.output
    assert "10m" in result.output
