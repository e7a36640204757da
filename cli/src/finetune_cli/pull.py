"""A model of the hub into a store, by a Job of the trainer image in the cluster: what is asked for, and what it becomes (C-13)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune_api.constants import API_VERSION, BASE_MODEL_KIND
from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.pull import COMPONENT_PULL, PullConfig, PullResult
from finetune_api.contract.run_config import StoreConfig
from finetune_api.documents import validate_document
from finetune_api.problems import SpecError
from finetune_api.rules.sources import ADDRESS_FORMS, PARENT_SEGMENT
from finetune_cli.errors import CliError
from finetune_cli.short_jobs import Manifest, ShortJob, Surroundings, build_short_job, mount_secret


@dataclass(frozen=True, slots=True)
class Pull:
    """What is asked for."""

    model: str
    """``org/name``, also with ``hf://`` before it."""
    revision: str | None
    """Branch, tag or commit; None: the main branch as it is now."""
    target: str
    """``s3://bucket/path``."""
    namespace: str
    secret: str
    """Keys of the store."""
    hub_secret: str | None = None
    """HF_TOKEN and HF_ENDPOINT; None: the public hub, without a token."""

    @property
    def uri(self) -> str:
        """Address of the model.

        Raises:
            CliError: it is none.
        """
        name = self.model.removeprefix("hf://")
        uri = f"hf://{name}@{self.revision}" if self.revision is not None else f"hf://{name}"
        if not re.fullmatch(ADDRESS_FORMS["hf"][0], uri):
            raise CliError(f"{uri} is no model of the hub; write org/name, and a branch, tag or commit as --revision")
        return uri

    @property
    def place(self) -> str:
        """Where it goes, without a slash at the end.

        Raises:
            CliError: it is no path in a bucket.
        """
        place = self.target.rstrip("/")
        forms = "|".join(ADDRESS_FORMS[scheme][0] for scheme in ("s3", "gs"))
        if not re.fullmatch(forms, place) or re.search(PARENT_SEGMENT, place):
            raise CliError(f"--to {self.target} is no place in a bucket; write s3://bucket/path")
        return place


def build_pull(asked: Pull, here: Surroundings) -> ShortJob:
    """The Job that pulls.

    Raises:
        CliError: model or place are none, or trainer pods may not ask the hub here.
    """
    if here.is_offline:
        raise CliError(
            "trainer pods of this installation ask the hub for nothing (chart value trainer.offline)",
            advice="Copy the model's directory into the store from a machine that may, for example with mc mirror.",
        )
    config = PullConfig(
        contract_version=CONTRACT_VERSION,
        uri=asked.uri,
        target=StoreConfig(uri=asked.place, endpoint=here.endpoint, region=here.region),
        store_secret=asked.secret,
        hub_secret=asked.hub_secret,
    )
    secrets = {env.SECRET_STORE: asked.secret, env.SECRET_HUGGINGFACE: asked.hub_secret}
    sees = [mount_secret(directory, name) for directory, name in secrets.items() if name is not None]
    subject = config.uri.rpartition("/")[2].partition("@")[0]
    return build_short_job(COMPONENT_PULL, subject, config, namespace=asked.namespace, sees=sees, here=here)


def provisional(asked: Pull) -> PullResult:
    """A result before there is one: whether a BaseModel of it may be created is known before hours of download."""
    return PullResult(uri=asked.place, commit="0" * 40, files=0, size_bytes=0, kept=0, model_type="LLM")


def build_base_model(name: str, result: PullResult, asked: Pull) -> Manifest:
    """The catalogue's entry of a pulled model.

    Raises:
        CliError: it cannot have this name.
    """
    known = {"parameters": result.parameters, "contextLength": result.context_length}
    spec = {
        "description": f"Pulled from hf://{asked.model.removeprefix('hf://')}@{result.commit}.",
        "uri": result.uri,
        "type": result.model_type,
        **{field: value for field, value in known.items() if value is not None},
    }
    document = {"apiVersion": API_VERSION, "kind": BASE_MODEL_KIND, "metadata": {"name": name}, "spec": spec}
    try:
        validate_document(document)
    except SpecError as error:
        raise CliError("; ".join(map(str, error.problems))) from error
    return document
