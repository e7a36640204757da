"""What the reply to a progress post carries: read from the job alone, so that every replica answers alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.contract.progress import Command
from finetune_api.models.status import PauseStatus
from finetune_operator.plan.desire import Request


def commands_of(ask: PauseStatus | None, request: Request | None, pause_policy: Mapping[str, Any]) -> tuple[Command, ...]:
    """The commands a trainer shall carry out now: the open ask for a pause or stop, and a requested checkpoint."""
    commands = []
    if ask is not None and ask.saved is None:
        timeout, if_unsaved = pause_policy.get("timeoutSeconds"), pause_policy.get("ifUnsaved")
        commands.append(Command(id=ask.command_id, action=ask.action, timeout_seconds=timeout, if_unsaved=if_unsaved))
    if request is not None and request.verb == "checkpoint":
        commands.append(Command(id=request.text, action="checkpoint"))
    return tuple(commands)
