"""A look at the data of a Dataset: what the verb ``look`` is told, and what it answers."""

from __future__ import annotations

from finetune_api.contract.base import ContractModel
from finetune_api.contract.preflight import DatasetFacts
from finetune_api.models.dataset import DatasetSpec


class DatasetIdentity(ContractModel):
    """Which Dataset this is."""

    name: str
    namespace: str
    uid: str


class LookConfig(ContractModel):
    """What one look does; mounted at :data:`finetune_api.contract.env.RUN_CONFIG_PATH`."""

    contract_version: int
    dataset: DatasetIdentity
    look: int
    """Number of the look, from 1: one Job and ConfigMap each."""
    spec: DatasetSpec
    """As written: what is not there has the meaning its description says."""
    offline: bool = False
    """True: the hub is not asked for anything."""


class LookResult(ContractModel):
    """What a look found: ``result`` of its termination message."""

    dataset: DatasetFacts | None = None
    columns: list[str] = []
    """Of the first row."""
    samples: list[str] = []
    """The first rows as JSON, cut."""
    digest: str | None = None
    """Of the contents, where all of it was read."""
    warnings: dict[str, str] = {}
    """Condition type -> message."""
