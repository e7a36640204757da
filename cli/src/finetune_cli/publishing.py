"""A Dataset on a hub, by a Job of the trainer image in the cluster: what is asked for, and what it becomes (D-18)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.publish import COMPONENT_PUBLISH, PublishConfig
from finetune_api.models.dataset import DatasetSpec
from finetune_api.models.output import REPO_PATTERN
from finetune_cli.errors import CliError
from finetune_cli.short_jobs import Mount, ShortJob, Surroundings, build_short_job, mount_secret, mount_sources


@dataclass(frozen=True, slots=True)
class Publication:
    """What is asked for."""

    spec: Mapping[str, Any]
    """Of a Dataset."""
    target: str
    """``hf://org/name``."""
    private: bool
    hub_secret: str
    namespace: str

    @property
    def repo_id(self) -> str:
        """The repository.

        Raises:
            CliError: it is none.
        """
        name = self.target.removeprefix("hf://")
        if not re.search(REPO_PATTERN, name):
            raise CliError(f"--to {self.target} is no repository; write hf://org/name")
        return name


def build_publication(asked: Publication, here: Surroundings) -> ShortJob:
    """The Job that publishes.

    Raises:
        CliError: the repository is none, or trainer pods may not ask the hub here.
    """
    if here.is_offline:
        raise CliError("trainer pods of this installation ask the hub for nothing (chart value trainer.offline)")
    spec = DatasetSpec.model_validate(dict(asked.spec))
    config = PublishConfig(
        contract_version=CONTRACT_VERSION, spec=spec, repo_id=asked.repo_id, private=asked.private, hub_secret=asked.hub_secret
    )
    uris = [uri for uri in (spec.uri, spec.eval_uri) if uri is not None]
    sees = [mount_secret(env.SECRET_PUSH, asked.hub_secret), *_credentials(spec), *mount_sources(uris)]
    subject = asked.repo_id.rpartition("/")[2]
    return build_short_job(COMPONENT_PUBLISH, subject, config, namespace=asked.namespace, sees=sees, here=here)


def find_dataset(datasets: Iterable[Mapping[str, Any]], name: str, namespace: str) -> dict[str, Any]:
    """The spec of a Dataset.

    Raises:
        CliError: there is none of this name; the message says which there are.
    """
    found = {str(dataset["metadata"]["name"]): dataset["spec"] for dataset in datasets}
    if name not in found:
        raise CliError(
            f"{name} is no file, and namespace {namespace} has no Dataset of this name; it has {', '.join(sorted(found)) or 'none'}"
        )
    return dict(found[name])


def _credentials(spec: DatasetSpec) -> list[Mount]:
    hub = spec.secrets.huggingface if spec.secrets is not None else None
    named = {env.SECRET_DATASET: spec.secret_ref, env.SECRET_HUGGINGFACE: hub.secret_ref if hub is not None else None}
    return [mount_secret(directory, secret.name) for directory, secret in named.items() if secret is not None]
