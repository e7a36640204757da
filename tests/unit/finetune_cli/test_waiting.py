from typing import Any

import pytest

from finetune_api.models.status import Phase
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.waiting import CheckpointTaken, ExportEnded, PhaseReached
from tests.unit.finetune_cli.builders import make_checkpoint, make_job

RETRY = {"metadata": {"annotations": {"finetune.dev/request": "retry/t1"}}}
SUSPEND = {"spec": {"suspend": True}}
FAILURE = {"class": "DataError", "message": "row 7 has no text", "advice": "Mend the row."}


def paused(*, observed: int) -> Job:
    return make_job("Paused", observedGeneration=observed)


def wait_for(before: Job, patch: dict[str, Any], *phases: Phase) -> PhaseReached:
    return PhaseReached(before, make_job(), patch, frozenset(phases))


def test_a_status_of_the_old_spec_does_not_count() -> None:
    """The phase is believed only when the operator has seen the patched generation."""
    is_done = wait_for(make_job(), SUSPEND, Phase.PAUSED)
    assert not is_done(paused(observed=1))
    assert is_done(paused(observed=2))


def test_a_request_is_done_when_its_own_token_was_handled() -> None:
    is_done = wait_for(make_job("Failed", failure=FAILURE), RETRY, Phase.TRAINING)
    assert not is_done(make_job("Training", lastHandledRequest="retry/t0"))
    assert is_done(make_job("Training", lastHandledRequest="retry/t1"))


def test_the_failure_that_is_retried_is_not_taken_for_a_new_one() -> None:
    is_done = wait_for(make_job("Failed", failure=FAILURE), RETRY, Phase.TRAINING)
    assert not is_done(make_job("Failed", failure=FAILURE))
    assert not is_done(make_job("Starting", lastHandledRequest="retry/t1"))
    with pytest.raises(CliError, match="row 7 has no text") as failed:
        is_done(make_job("Failed", failure=FAILURE, lastHandledRequest="retry/t1"))
    assert failed.value.advice == "Mend the row."


def test_a_job_that_fails_instead_of_pausing_is_an_error() -> None:
    is_done = wait_for(make_job("Training"), SUSPEND, Phase.PAUSED)
    with pytest.raises(CliError, match="failed: row 7 has no text"):
        is_done(make_job("Failed", failure=FAILURE))


def test_only_a_new_checkpoint_that_was_asked_for_counts() -> None:
    is_done = CheckpointTaken(make_job(checkpoints={"latest": make_checkpoint(20, trigger="command")}))
    assert not is_done(make_job(checkpoints={"latest": make_checkpoint(20, trigger="command")}))
    assert not is_done(make_job(checkpoints={"latest": make_checkpoint(40)}))
    newer = [make_checkpoint(33, trigger="command"), make_checkpoint(40)]
    assert is_done(make_job(checkpoints={"latest": newer[-1], "recent": newer}))


def test_a_checkpoint_of_a_job_that_was_paused_first_never_comes() -> None:
    with pytest.raises(CliError, match="its phase is Pausing"):
        CheckpointTaken(make_job())(make_job("Pausing"))


def exported(serial: int, state: str, *, request: str = "retry/t1", **status: Any) -> Job:
    return make_job("Succeeded", lastHandledRequest=request, export={"serial": serial, "state": state}, **status)


def test_an_export_is_done_when_the_one_that_was_asked_for_is() -> None:
    """W-04: the export before it counts for nothing; a try that is repeated is still the same export."""
    is_done = ExportEnded(exported(1, "Done", request="retry/t0"), RETRY)
    assert not is_done(exported(1, "Done", request="retry/t0"))
    assert not is_done(exported(2, "Open"))
    assert not is_done(exported(3, "Open"))
    assert is_done(exported(3, "Done"))


def test_the_first_export_of_a_job() -> None:
    assert ExportEnded(make_job("Succeeded"), RETRY)(exported(1, "Done"))


def test_a_failed_export_is_said_with_its_advice() -> None:
    """W-03, W-04."""
    failed = {"type": "ExportFailed", "status": "True", "reason": "HubUnavailable", "message": "no answer. Try again."}
    job = exported(1, "Failed", conditions=[{**failed, "lastTransitionTime": "2026-11-01T12:00:00Z"}])
    with pytest.raises(CliError, match="the export of finetunejob/demo in namespace team failed") as ended:
        ExportEnded(make_job("Succeeded"), RETRY)(job)
    assert ended.value.advice == "HubUnavailable: no answer. Try again."


def test_an_export_that_the_operator_refuses_is_not_waited_for() -> None:
    before = exported(1, "Done", request="retry/t0")
    with pytest.raises(CliError, match="the operator did not take up the export") as refused:
        ExportEnded(before, RETRY)(exported(1, "Done"))
    assert "kubectl events -n team --for finetunejob/demo" in refused.value.advice
