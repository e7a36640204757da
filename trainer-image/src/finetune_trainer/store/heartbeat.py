"""A small object that says how far an attempt got and what it used, so that the next one knows what was lost when a pod is killed."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from finetune_api.contract.base import ContractModel
from finetune_api.contract.store import Rewind, UsageSeconds
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError


class Heartbeat(ContractModel):
    """Progress of an attempt, a few seconds old."""

    attempt: int
    step: int
    lost_until_step: int = 0
    """Steps up to here had been trained before this attempt began."""
    usage: UsageSeconds | None = None
    """Seconds by use, this attempt and all before it."""
    rewinds: list[Rewind] = []
    """In force in this attempt."""
    diverged_step: int | None = None
    """Where this attempt diverged, when the next one is to go back from it."""
    steady_until: int | None = None
    """Then no checkpoint after this step is gone back to; None: the last one is good."""

    @property
    def reached(self) -> int:
        """Highest step that any attempt up to this one has trained."""
        return max(self.step, self.lost_until_step)


def heartbeat_key(attempt: int) -> str:
    """Key of an attempt's heartbeat."""
    return f"heartbeats/{attempt}.json"


def write_heartbeat(store: Store, heartbeat: Heartbeat) -> None:
    """Replace the attempt's heartbeat."""
    store.put(heartbeat_key(heartbeat.attempt), heartbeat.to_json().encode())


def read_heartbeat(store: Store, attempt: int) -> Heartbeat | None:
    """Heartbeat of an attempt, None when it never wrote one."""
    try:
        return Heartbeat.model_validate_json(store.get(heartbeat_key(attempt)))
    except (ObjectNotFoundError, ValidationError):
        return None


def newest_heartbeat(store: Store, attempts: Iterable[int]) -> Heartbeat | None:
    """Heartbeat of the latest of some attempts that wrote one."""
    beats = (read_heartbeat(store, attempt) for attempt in sorted(attempts, reverse=True))
    return next((beat for beat in beats if beat is not None), None)
