from __future__ import annotations

import pytest

from finetune_api.contract.progress import Command
from finetune_api.models.status import PauseStatus
from finetune_operator.plan.commands import commands_of
from finetune_operator.plan.desire import Desire, Request, desire_of, open_request, request_in
from tests.support.operator_values import make_job, running_status

ASK = PauseStatus(command_id="pause-1-2", run=1, action="pause", requested_at="2026-11-21T08:00:00Z")
POLICY = {"timeoutSeconds": 600, "ifUnsaved": "Wait"}


def test_an_open_ask_is_a_command_with_its_policy() -> None:
    assert commands_of(ASK, None, POLICY, run=1) == (Command(id="pause-1-2", action="pause", timeout_seconds=600, if_unsaved="Wait"),)


@pytest.mark.parametrize("saved", [True, False])
def test_an_answered_ask_is_for_pods_that_should_be_gone(saved: bool) -> None:
    """OP-09: one that has missed its SIGTERM is told to stop and go in the reply to its next post; the next run is not."""
    answered = ASK.model_copy(update={"saved": saved})
    said = [(command.id, command.action) for command in commands_of(answered, None, POLICY, run=1)]
    assert said == [("pause-1-2", "pause"), ("release-pause-1-2", "release")]
    assert commands_of(answered, None, POLICY, run=2) == ()


def test_a_requested_checkpoint_is_a_command() -> None:
    assert commands_of(None, Request("checkpoint", "checkpoint/7"), {}, run=1) == (Command(id="checkpoint/7", action="checkpoint"),)
    assert commands_of(None, Request("retry", "retry/7"), {}, run=1) == ()


def test_each_token_acts_once() -> None:
    """Design §3: status.lastHandledRequest remembers it."""
    job = make_job(annotations={"finetune.dev/request": "retry/7"}, status=running_status(last_handled_request="retry/7"))
    assert open_request(job) is None
    assert request_in({"finetune.dev/request": "retry/8"}, "retry/7") == Request("retry", "retry/8")
    assert request_in({}, None) is None


@pytest.mark.parametrize(
    ("spec", "desire"),
    [
        ({}, Desire.RUN),
        ({"replicas": 0}, Desire.PAUSE),
        ({"suspend": True, "replicas": 4}, Desire.PAUSE),
        ({"suspend": True, "desiredState": "Stopped"}, Desire.STOP),
        ({"suspend": True, "desiredState": "Cancelled"}, Desire.CANCEL),
    ],
)
def test_what_the_user_wants(spec: dict[str, object], desire: Desire) -> None:
    assert desire_of(make_job(spec)) is desire
