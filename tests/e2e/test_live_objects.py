"""Jobs as the API server shows them while they live: judged by GitOps tools' own library, and as they were applied (A-09, R-14)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from finetune_api.lifecycle import PHASES, Health
from finetune_api.models.status import Phase
from tests.e2e.conftest import JobFactory
from tests.support.gitops import find_judge
from tests.support.jobs import make_job
from tests.support.platform import Job

pytestmark = pytest.mark.e2e
KSTATUS = {Health.CURRENT: "Current", Health.IN_PROGRESS: "InProgress", Health.FAILED: "Failed"}
LONG: dict[str, Any] = {"training": {"maxSteps": 5000}}
NOWHERE: dict[str, Any] = {"dataset": {"uri": "configmap://sft/nowhere.jsonl"}}


def set_spec(job: Job, spec: dict[str, Any], *phases: str) -> None:
    """Apply the job's file with another spec and wait for a phase: what is live then is what the file says."""
    document = make_job(job.name, spec)
    job.kubectl.apply(document)
    job.wait_phase(*phases)
    done = job.kubectl.run("diff", "-f", "-", stdin=yaml.safe_dump(document), check=False)
    assert (done.returncode, done.stdout) == (0, ""), f"{phases}: {done.stderr}"


def expected(manifest: dict[str, Any]) -> str:
    """What the table says; a generation nobody has looked at yet is in progress."""
    status = manifest["status"]
    if status.get("observedGeneration") != manifest["metadata"]["generation"]:
        return "InProgress"
    return KSTATUS[PHASES[Phase(status["phase"])].health]


def test_kstatus_and_diff_of_every_phase(run_job: JobFactory) -> None:
    """Through pause, stop, success and failure kstatus is the table's at every version of the object, and `kubectl diff` stays empty."""
    judge = find_judge()
    jobs = [run_job("lives", LONG), run_job("fails", NOWHERE)]
    with jobs[0].watched() as life, jobs[1].watched() as failure:
        set_spec(jobs[0], LONG, "Training")
        set_spec(jobs[0], {**LONG, "suspend": True}, "Paused")
        set_spec(jobs[0], LONG, "Training")
        set_spec(jobs[0], {**LONG, "desiredState": "Stopped"}, "Stopped")
        set_spec(jobs[0], {"training": {"maxSteps": jobs[0].status["progress"]["step"] + 20}}, "Succeeded")
        set_spec(jobs[1], NOWHERE, "Failed")
        shown = [*life(), *failure()]
    found = {(each["status"]["phase"], judge.kstatus(each), expected(each)) for each in shown}
    assert {entry for entry in found if entry[1] != entry[2]} == set()
    seen = {entry[0] for entry in found}
    assert seen >= {"Starting", "Training", "Pausing", "Paused", "Resuming", "Stopping", "Stopped", "Succeeded", "Failed"}
