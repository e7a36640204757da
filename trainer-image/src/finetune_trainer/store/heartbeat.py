"""A small object that says how far an attempt got, so that the next one knows which steps were lost when a pod is killed."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_api.contract.base import ContractModel
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError


class Heartbeat(ContractModel):
    """Progress of an attempt, a few seconds old."""

    attempt: int
    step: int
    lost_until_step: int = 0
    """Steps up to here had been trained before this attempt began."""


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
