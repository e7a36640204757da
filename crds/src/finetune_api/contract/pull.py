"""Bringing a model of a hub into a store: what the verb ``pull`` is told, what it leaves beside the files, what it answers."""

from __future__ import annotations

from typing import Final

from finetune_api.contract.base import ContractModel
from finetune_api.contract.run_config import StoreConfig
from finetune_api.models.sources import ModelType

PULL_MANIFEST: Final = "finetune-pull.json"
"""Object beside the model's files, written last: where it is, all of them are there."""
PULL_STATE: Final = "finetune-pull.partial.json"
"""Object that says, while a pull is under way, what it brings and which files are there; written first, removed last."""
COMPONENT_PULL: Final = "pull"
"""Value of the label for components on the Job of a pull."""


class PullConfig(ContractModel):
    """What one pull does; mounted at :data:`finetune_api.contract.env.RUN_CONFIG_PATH`."""

    contract_version: int
    uri: str
    """``hf://org/name`` or ``hf://org/name@revision``."""
    target: StoreConfig
    """Where the files go; nobody else may write there."""
    store_secret: str
    """Name of the Secret of the store, for messages."""
    hub_secret: str | None = None
    """Name of the Secret with HF_TOKEN and HF_ENDPOINT, for messages; None: there is none."""


class PulledFile(ContractModel):
    """A file that is in the store, and was what the hub says it is."""

    path: str
    """Relative to the target."""
    size: int
    """Bytes."""
    sha256: str
    etag: str
    """Of the object: another one means that somebody replaced it."""


class PullRecord(ContractModel):
    """What a target holds: :data:`PULL_STATE` while it is filled, :data:`PULL_MANIFEST` once it is whole."""

    contract_version: int
    source: str
    """``hf://org/name``."""
    commit: str
    files: list[PulledFile] = []


class PullResult(ContractModel):
    """What was brought: ``result`` of the termination message."""

    uri: str
    """Address of the model in the store."""
    commit: str
    files: int
    size_bytes: int
    kept: int
    """Files among them that were there already."""
    model_type: ModelType
    parameters: int | None = None
    """Number of parameters; None where the files have no headers."""
    context_length: int | None = None
    """Tokens; None where config.json does not say."""
