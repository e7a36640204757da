"""Publishing a dataset on a hub: what the verb ``publish`` is told, and what it answers."""

from __future__ import annotations

from typing import Final

from finetune_api.contract.base import ContractModel
from finetune_api.models.dataset import DatasetSpec

COMPONENT_PUBLISH: Final = "publish"
"""Value of the label for components on the Job that publishes."""


class PublishConfig(ContractModel):
    """What one publication does; mounted at :data:`finetune_api.contract.env.RUN_CONFIG_PATH`."""

    contract_version: int
    spec: DatasetSpec
    """The data, as in a Dataset: address, split, configuration, credentials, evaluation data, description."""
    repo_id: str
    """``org/name``; made if it does not exist."""
    private: bool
    """Visibility of a repository that is made; an existing one stays as it is."""
    hub_secret: str
    """Name of the Secret with HF_TOKEN that may write, for messages."""


class PublishResult(ContractModel):
    """What the hub has now: ``result`` of the termination message."""

    url: str
    commit: str
    files: int
    size_bytes: int
