"""What the reply to a progress post carries: read from the job alone, so that every replica answers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.contract.progress import Command
from finetune_api.models.status import PauseStatus
from finetune_operator.plan.desire import Request


def commands_of(ask: PauseStatus | None, request: Request | None, pause_policy: Mapping[str, Any], run: int | None) -> tuple[Command, ...]:
    """The commands a trainer of a run shall carry out now: an ask for a pause or stop, and a requested checkpoint.

    ``run`` is the one the trainer's pod was made for, None where that is not known: status may not have heard of it yet.
    An ask that is answered holds on for the run it was made of: its pods are being deleted, and one that still reports has missed the
    signal. It is asked again, and told to go without waiting for that signal, which the kubelet sends once. A trainer carries out a
    command once.
    """
    commands = []
    if ask is not None and (ask.saved is None or ask.run == run):
        timeout, if_unsaved = pause_policy.get("timeoutSeconds"), pause_policy.get("ifUnsaved")
        commands.append(Command(id=ask.command_id, action=ask.action, timeout_seconds=timeout, if_unsaved=if_unsaved))
        if ask.saved is not None:
            commands.append(Command(id=f"release-{ask.command_id}", action="release"))
    if request is not None and request.verb == "checkpoint":
        commands.append(Command(id=request.text, action="checkpoint"))
    return tuple(commands)
