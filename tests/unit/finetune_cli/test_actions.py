import pytest

from finetune_cli.actions import (
    ExportFormat,
    build_cancel,
    build_checkpoint,
    build_export,
    build_pause,
    build_promote,
    build_resume,
    build_retry,
    build_stop,
    checkpoint_uri,
    request_of,
)
from finetune_cli.errors import CliError
from tests.unit.finetune_cli.builders import make_checkpoint, make_job

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
    with pytest.raises(CliError, match="only a failed job, or the export"):
        build_retry(make_job("Training"), "t")
    with pytest.raises(CliError, match="while a job trains"):
        build_checkpoint(make_job("Paused"), "t")


HOLD = {"reason": "LimitReached", "message": "used up", "since": "2026-11-21T08:00:00Z"}


def test_resume_after_a_limit_is_a_request_beside_whatever_else_holds() -> None:
    """OP-12: the operator's own pause is left by the request, the user's by the spec."""
    request = {"metadata": {"annotations": {ANNOTATION: "resume/t1"}}}
    assert build_resume(make_job("Paused", hold=HOLD), "t1") == request
    assert build_resume(make_job("Paused", spec={"suspend": True}, hold=HOLD), "t1") == {"spec": {"suspend": False}} | request


def test_resume_from_a_checkpoint_writes_the_wish() -> None:
    """R-06: with whatever holds the job taken away in the same patch."""
    patch = build_resume(make_job("Paused", spec={"suspend": True}), "t1", "checkpoint-500")
    assert patch == {"spec": {"checkpoint": {"resumeFrom": "checkpoint-500"}, "suspend": False}}
    with pytest.raises(CliError, match="nothing holds"):
        build_resume(make_job("Training"), "t1", "checkpoint-500")


def test_another_jobs_checkpoint_by_name() -> None:
    """R-06: the newest, or the one of a step; one that keeps its weights only cannot be resumed from."""
    ledger = {"latest": make_checkpoint(300), "recent": [make_checkpoint(100, resumable=False), make_checkpoint(200), make_checkpoint(300)]}
    other = make_job("Succeeded", checkpoints=ledger)
    assert checkpoint_uri(other, None) == "s3://finetune/demo/a1/checkpoint-300"
    assert checkpoint_uri(other, 200) == "s3://finetune/demo/a1/checkpoint-200"
    with pytest.raises(CliError, match="no resumable checkpoint-100; its status knows checkpoint-200, checkpoint-300"):
        checkpoint_uri(other, 100)
    with pytest.raises(CliError, match="its status knows none"):
        checkpoint_uri(make_job("Starting"), None)


def test_promote_keeps_what_a_cancelled_job_wrote() -> None:
    """Q-08, AC-58."""
    assert build_promote(make_job("Cancelled"), "support-bot") == {"metadata": {"annotations": {"finetune.dev/promoted": "support-bot"}}}
    with pytest.raises(CliError, match="the phase of"):
        build_promote(make_job("Training"), "x")
    with pytest.raises(CliError, match="was removed at 2026"):
        build_promote(make_job("Cancelled", artifactsRemovedAt="2026-12-21T08:00:00Z"), "x")


RETRY = {"metadata": {"annotations": {ANNOTATION: "retry/t1"}}}
GGUF, MERGED = ExportFormat.GGUF, ExportFormat.MERGED


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"output": {"merge": True}}, {}),
        ({"output": {"export": {"gguf": {"enabled": True}}}, "adapter": {"type": "full"}}, {}),
        ({}, {"resolved": {"output.push.enabled": {"value": "true", "source": "preset"}}}),
        ({"output": {"push": {"enabled": True}}}, {"export": {"serial": 2, "state": "Failed"}}),
    ],
)
def test_export_asks_for_what_the_spec_or_its_preset_names(spec: dict[str, object], status: dict[str, object]) -> None:
    """W-01, W-03, W-04."""
    assert build_export(make_job("Succeeded", spec=spec, **status), "t1") == RETRY


def test_export_of_a_format_asks_for_it_in_the_same_patch() -> None:
    """W-04: kubectl finetune export --format gguf."""
    gguf = {"spec": {"output": {"export": {"gguf": {"enabled": True}}}}}
    assert build_export(make_job("Succeeded"), "t1", [GGUF]) == gguf | RETRY
    both = {"spec": {"output": {"merge": True, "export": {"gguf": {"enabled": True}}}}}
    assert build_export(make_job("Succeeded"), "t1", [MERGED, GGUF]) == both | RETRY


@pytest.mark.parametrize("resolved", [{}, {"output.merge": {"value": "false"}, "adapter.type": {"value": "lora"}}])
def test_an_export_of_nothing_is_refused(resolved: dict[str, object]) -> None:
    """W-04: with the fields that decide, their values, and what would help."""
    with pytest.raises(CliError, match="nothing of finetunejob/demo in namespace team is to be exported") as refused:
        build_export(make_job("Succeeded", resolved=resolved), "t1")
    values = "adapter.type lora, output.merge false, output.export.gguf.enabled false, output.push.enabled false"
    assert str(refused.value).endswith(f"exported: {values}")
    assert refused.value.advice == "Ask for --format merged, --format gguf, or set output.push in the spec."


def test_a_whole_model_has_nothing_to_merge() -> None:
    """W-01: preset or method may have said that all weights are trained."""
    full = make_job("Succeeded", resolved={"adapter.type": {"value": "full", "source": "method"}})
    with pytest.raises(CliError, match=r"adapter\.type full, output\.merge true") as refused:
        build_export(full, "t1", [MERGED])
    assert "a merge adds nothing to the whole model that adapter.type full leaves" in refused.value.advice
    assert "merged" not in refused.value.advice


@pytest.mark.parametrize(
    ("phase", "status", "message"),
    [
        ("Training", {}, "only the result of a job that has succeeded can be exported; the phase of .* is Training"),
        ("Failed", {}, "the phase of .* is Failed"),
        ("Exporting", {"export": {"serial": 1}}, "an export of finetunejob/demo in namespace team is under way"),
        ("Succeeded", {"export": {"serial": 2}}, "is under way"),
    ],
)
def test_an_export_that_cannot_be_is_refused(phase: str, status: dict[str, object], message: str) -> None:
    with pytest.raises(CliError, match=message):
        build_export(make_job(phase, spec={"output": {"merge": True}}, **status), "t1")
