from typing import Any

import pytest

from finetune_api.models.status import Phase
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.waiting import CheckpointTaken, PhaseReached
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
