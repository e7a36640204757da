"""What the resolvers need to know of the pod: directories, credentials, whether the hub may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.errors import StorageUnavailableError

Role: TypeAlias = str
"""Spec field a source stands in: messages name it, and it decides the failure class."""


@dataclass(frozen=True)
class SourceContext:
    """Places and permissions of one pod."""

    cache_dir: Path
    pvc_dir: Path
    configmap_dir: Path
    hub_secret: SecretFiles
    offline: bool


class Source(NamedTuple):
    """A URI of the spec with its credentials."""

    uri: str
    role: Role
    secret: SecretFiles
    region: str | None = None
    runs_code: bool = False
    """Code that lies there may be run (``model.trustRemoteCode``)."""

    @property
    def scheme(self) -> str:
        """The part before ``://``."""
        return self.uri.partition("://")[0]


def source_error(source: Source, problem: str, kind: FailureClass | None = None) -> TrainerError:
    """An error of a source, the field and the URI named; without ``kind`` its role gives the class (ModelError, DataError and so on)."""
    text = f"{source.role} {source.uri}: {problem}"
    if kind is FailureClass.STORAGE_UNAVAILABLE:
        return StorageUnavailableError(text)
    return TrainerError(kind or _kind_of(source.role), text)


def _kind_of(role: Role) -> FailureClass:
    if role.startswith("dataset"):
        return FailureClass.DATA
    if role.startswith("model") or "Model" in role:
        return FailureClass.MODEL
    if role == "checkpoint.resumeFrom":
        return FailureClass.CHECKPOINT_INCOMPLETE
    return FailureClass.CONFIGURATION
