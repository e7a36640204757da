import pytest

from finetune_cli.actions import build_cancel, build_checkpoint, build_pause, build_resume, build_retry, build_stop, request_of
from finetune_cli.errors import CliError
from tests.unit.finetune_cli.builders import make_job

ANNOTATION = "finetune.dev/request"


def test_pause_suspends_and_leaves_replicas_alone() -> None:
    """OP-22: the command line's pause lasts beyond the next scale; it stores suspend, not replicas."""
    assert build_pause(make_job()) == {"spec": {"suspend": True}}


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({"suspend": True}, {}, {"spec": {"suspend": False}}),
        ({"replicas": 0}, {"lastReplicas": 4}, {"spec": {"replicas": 4}}),
        ({"replicas": 0}, {}, {"spec": {"replicas": 1}}),
        ({"replicas": 0, "suspend": True}, {"lastReplicas": 2}, {"spec": {"suspend": False, "replicas": 2}}),
        ({"desiredState": "Stopped"}, {}, {"spec": {"desiredState": "Running"}}),
        ({}, {"reason": "LimitReached"}, {"metadata": {"annotations": {ANNOTATION: "resume/t1"}}}),
    ],
)
def test_resume_removes_what_holds_the_job(spec: dict[str, object], status: dict[str, object], expected: dict[str, object]) -> None:
    assert build_resume(make_job("Paused", spec=spec, **status), "t1") == expected


def test_resume_of_a_running_job_says_that_nothing_holds_it() -> None:
    with pytest.raises(CliError, match="nothing holds finetunejob/demo in namespace team: its phase is Training"):
        build_resume(make_job("Training"), "t1")


def test_resume_of_a_failed_job_points_to_retry() -> None:
    with pytest.raises(CliError, match="by a retry only") as refused:
        build_resume(make_job("Failed"), "t1")
    assert refused.value.advice == "kubectl finetune retry demo -n team"


def test_stop_and_cancel_set_the_desired_state() -> None:
    assert build_stop(make_job()) == {"spec": {"desiredState": "Stopped"}}
    assert build_cancel(make_job("Paused")) == {"spec": {"desiredState": "Cancelled"}}


@pytest.mark.parametrize("build", [build_pause, build_stop, build_cancel])
@pytest.mark.parametrize("phase", ["Succeeded", "Cancelled"])
def test_final_phases_are_never_left(build: object, phase: str) -> None:
    assert callable(build)
    with pytest.raises(CliError, match=f"it is {phase}, which is final"):
        build(make_job(phase))


def test_requests_carry_their_token() -> None:
    retry = build_retry(make_job("Failed"), "ab12")
    assert request_of(retry) == "retry/ab12"
    assert request_of(build_checkpoint(make_job("Training"), "cd34")) == "checkpoint/cd34"
    assert request_of({"spec": {"suspend": True}}) is None


def test_requests_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(CliError, match="only a failed job can be retried"):
        build_retry(make_job("Training"), "t")
    with pytest.raises(CliError, match="while a job trains"):
        build_checkpoint(make_job("Paused"), "t")
