"""Where a trainer pod finds and puts things: the contract's paths and variables, read once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.constants import DEFAULT_STORE_SECRET
from finetune_api.contract import ACCEPTED_CONTRACT_VERSIONS, env
from finetune_api.contract.look import LookConfig
from finetune_api.contract.publish import PublishConfig
from finetune_api.contract.pull import PullConfig
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.serve import ServeConfig
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import ATTACHED
from finetune_trainer.errors import configuration_error
from finetune_trainer.protocol import DataStream
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.hub_stream import find_stream
from finetune_trainer.sources.resolve import Split
from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.opening import open_store

Config = TypeVar("Config", RunConfig, LookConfig, PullConfig, PublishConfig, ServeConfig)
OTHER_COMMAND_LINE = "use a kubectl finetune of the operator's version, or an --image of this one's."
GROUP_PORT = 29400
"""Pod 0's supervisor answers the other pods here."""


@dataclass(frozen=True)
class PodEnvironment:
    """One pod's identity, directories and ports."""

    run_config: Path
    work_dir: Path
    cache_dir: Path
    secrets_dir: Path
    pvc_dir: Path
    configmap_dir: Path
    termination_message: Path
    progress_token: Path
    progress_ca: Path
    pod_name: str
    pod_uid: str
    node_name: str
    pod_index: int
    image: str | None = None
    """The image this runs in; None in local runs."""
    metrics_port: int | None = env.METRICS_PORT
    """None: no metrics server."""
    group_port: int = GROUP_PORT
    program: tuple[str, ...] = (sys.executable, "-m", "finetune_trainer")
    """Command that understands the verbs ``worker`` and ``prepare``."""
    memory_events: tuple[Path, ...] = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
    """Where the kernel counts OOM kills (cgroup v2, v1)."""

    @property
    def output_dir(self) -> Path:
        """Workers save here."""
        return self.work_dir / "output"


def pod_environment(variables: Mapping[str, str]) -> PodEnvironment:
    """Read the contract's variables; unset ones have the contract's paths."""

    def path(name: str, default: str) -> Path:
        return Path(variables.get(name) or default)

    pod_name = variables.get(env.ENV_POD_NAME) or "local"
    return PodEnvironment(
        run_config=path(env.ENV_RUN_CONFIG, env.RUN_CONFIG_PATH),
        work_dir=path(env.ENV_WORK_DIR, env.WORK_DIR),
        cache_dir=path(env.ENV_CACHE_DIR, env.CACHE_DIR),
        secrets_dir=path(env.ENV_SECRETS_DIR, env.SECRETS_DIR),
        pvc_dir=path(env.ENV_PVC_DIR, env.PVC_DIR),
        configmap_dir=path(env.ENV_CONFIGMAP_DIR, env.CONFIGMAP_DIR),
        termination_message=path(env.ENV_TERMINATION_MESSAGE, env.TERMINATION_MESSAGE_PATH),
        progress_token=Path(env.PROGRESS_TOKEN_PATH),
        progress_ca=Path(env.PROGRESS_CA_PATH),
        pod_name=pod_name,
        pod_uid=variables.get(env.ENV_POD_UID) or pod_name,
        node_name=variables.get(env.ENV_NODE_NAME) or "local",
        pod_index=int(variables.get(env.ENV_POD_INDEX) or 0),
        image=variables.get(env.ENV_IMAGE) or None,
        metrics_port=int(variables.get(env.ENV_METRICS_PORT) or env.METRICS_PORT),
        group_port=int(variables.get(env.ENV_GROUP_PORT) or GROUP_PORT),
    )


def load_run_config(path: Path) -> RunConfig:
    """Read the run config. Raises TrainerError (ConfigurationError) that names what does not fit."""
    return _read(path, RunConfig, "set resources.image to an image of the operator's version.")


def load_look_config(path: Path) -> LookConfig:
    """Read what a look at a Dataset is told. Raises TrainerError (ConfigurationError) that names what does not fit."""
    return _read(path, LookConfig, "install a chart whose two images are of one version.")


def load_pull_config(path: Path) -> PullConfig:
    """Read what a pull is told. Raises TrainerError (ConfigurationError) that names what does not fit."""
    return _read(path, PullConfig, OTHER_COMMAND_LINE)


def load_publish_config(path: Path) -> PublishConfig:
    """Read what a publication is told. Raises TrainerError (ConfigurationError) that names what does not fit."""
    return _read(path, PublishConfig, OTHER_COMMAND_LINE)


def load_serve_config(path: Path) -> ServeConfig:
    """Read what a server is told. Raises TrainerError (ConfigurationError) that names what does not fit."""
    return _read(path, ServeConfig, OTHER_COMMAND_LINE)


def _read(path: Path, document: type[Config], remedy: str) -> Config:
    """``remedy``: what to do when the contract's versions differ."""
    try:
        config = document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise configuration_error(f"The run config {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise configuration_error(
            f"The run config does not fit this trainer: {field}: {first['msg']}. Use the operator's own trainer image."
        ) from error
    if config.contract_version not in ACCEPTED_CONTRACT_VERSIONS:
        accepted = " and ".join(map(str, ACCEPTED_CONTRACT_VERSIONS))
        raise configuration_error(
            f"The operator speaks contract version {config.contract_version}, this trainer image {accepted}: {remedy}"
        )
    return config


@dataclass(frozen=True)
class Secrets:
    """The job's Secrets as mounted directories."""

    store: SecretFiles
    model: SecretFiles
    adapter: SecretFiles
    """Of ``adapter.attach``."""
    dataset: SecretFiles
    additional: list[SecretFiles]
    """Of ``dataset.additional``, in its order."""
    hub: SecretFiles
    trackers: dict[str, Path]
    """Tracker type -> directory."""


def job_secrets(config: RunConfig, environment: PodEnvironment) -> Secrets:
    """Which directory holds which Secret, with the names users know them by."""
    spec = config.spec

    def mounted(directory: str, name: str) -> SecretFiles:
        return SecretFiles(environment.secrets_dir / directory, name)

    of_all = config.store.secret or DEFAULT_STORE_SECRET
    store = mounted(env.SECRET_STORE, spec.checkpoint.secret_ref.name if spec.checkpoint.secret_ref else of_all)
    hub, attached = spec.secrets.huggingface, spec.adapter.attach
    dataset = mounted(env.SECRET_DATASET, spec.dataset.secret_ref.name) if spec.dataset.secret_ref else store
    return Secrets(
        store=store,
        model=mounted(env.SECRET_MODEL, spec.model.secret_ref.name) if spec.model.secret_ref else store,
        adapter=mounted(env.SECRET_ADAPTER, attached.secret_ref.name) if attached is not None and attached.secret_ref else store,
        dataset=dataset,
        additional=[
            mounted(f"{env.SECRET_ADDITIONAL_PREFIX}{index}", part.secret_ref.name) if part.secret_ref else dataset
            for index, part in enumerate(spec.dataset.additional or [])
        ],
        hub=mounted(env.SECRET_HUGGINGFACE, hub.secret_ref.name if hub else "(secrets.huggingface.secretRef is not set)"),
        trackers={
            tracker.type: environment.secrets_dir / f"{env.SECRET_TRACKER_PREFIX}{index}"
            for index, tracker in enumerate(spec.logging.trackers)
            if tracker.secret_ref
        },
    )


def model_source(spec: FineTuneJobSpec, secrets: Secrets) -> Source:
    """Where the base model is."""
    model = spec.model
    return Source(model.uri, "model.uri", secrets.model, model.region, model.trust_remote_code)


def tokenizer_source(spec: FineTuneJobSpec, secrets: Secrets) -> Source | None:
    """Where another tokenizer is; None for the model's own."""
    model = spec.model
    if model.tokenizer is None:
        return None
    return Source(model.tokenizer.uri, "model.tokenizer.uri", secrets.model, model.region, model.trust_remote_code)


def attached_source(spec: FineTuneJobSpec, secrets: Secrets) -> Source | None:
    """Where the adapter is that training goes on from; None for a new one."""
    attached = spec.adapter.attach
    return Source(attached.uri, ATTACHED, secrets.adapter, attached.region) if attached is not None else None


def dataset_sources(spec: FineTuneJobSpec, secrets: Secrets) -> list[tuple[Source, Split]]:
    """The sources of training rows, in the order of ``Dataset.parts``."""
    credentials = [secrets.dataset, *secrets.additional]
    fields = ["dataset.uri", *(f"dataset.additional[{index}].uri" for index in range(len(secrets.additional)))]
    return [
        (Source(part.uri, field, secret, part.region), Split(part.split or spec.dataset.split, part.config))
        for part, field, secret in zip(spec.dataset.parts, fields, credentials, strict=True)
    ]


def data_stream(spec: FineTuneJobSpec, secrets: Secrets, context: SourceContext, pinned: str | None = None) -> DataStream | None:
    """Where a job reads its rows during the training; None for one that has them before."""
    if not spec.dataset.streaming:
        return None
    ((source, split),) = dataset_sources(spec, secrets)
    return find_stream(source, context, split, pinned=pinned)


def source_context(config: RunConfig, environment: PodEnvironment) -> SourceContext:
    """What the source resolvers need."""
    return SourceContext(
        cache_dir=environment.cache_dir,
        pvc_dir=environment.pvc_dir,
        configmap_dir=environment.configmap_dir,
        hub_secret=job_secrets(config, environment).hub,
        offline=config.offline,
    )


def job_store(config: RunConfig, environment: PodEnvironment) -> Store:
    """The job's own store."""
    return open_store(config.store, job_secrets(config, environment).store)
