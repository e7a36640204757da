"""The container of a TrainingMethod's run: the administrator's image, told what to do by a file and by variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune_api.contract import custom as names
from finetune_api.contract import env
from finetune_api.contract.custom import chosen, job_variables, output_dir, parameter_variables
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.scheduling import EnvironmentVariable
from finetune_operator.plan.observed import Manifest
from finetune_operator.settings import PlanSettings

INDEX_FIELD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
"""Pod index within the run."""
FROM_SECRET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def custom_program(config: RunConfig, settings: PlanSettings) -> Manifest:
    """Image, command and arguments."""
    spec = chosen(config)[0].spec
    program: Manifest = {"image": spec.image, "imagePullPolicy": spec.image_pull_policy or settings.image_pull_policy}
    if spec.command is not None:
        program["command"] = list(spec.command)
    if spec.args is not None:
        program["args"] = list(spec.args)
    return program


def custom_environment(config: RunConfig, settings: PlanSettings) -> list[Manifest]:
    """Every variable, each once; of two of the same name the later one counts, so that jobs come after their method."""
    method = chosen(config)[0].spec
    entries = [
        *_plain(_own(config)),
        *_hub(config),
        *_rank_group(config),
        *_store(config, settings),
        *_plain(job_variables(config.spec)),
        *_written(method.env or ()),
        *_plain(parameter_variables(config)),
    ]
    return list({entry["name"]: entry for entry in entries}.values())


def _plain(values: dict[str, str]) -> Iterator[Manifest]:
    return ({"name": name, "value": value} for name, value in values.items())


def _written(variables: Iterable[EnvironmentVariable]) -> Iterator[Manifest]:
    return ({"name": variable.name, "value": variable.value} for variable in variables)


def _own(config: RunConfig) -> dict[str, str]:
    """Where things are, and where to report."""
    assert config.progress is not None, "the operator always says where progress goes"
    values = {
        names.ENV_JOB_FILE: names.JOB_FILE,
        names.ENV_METHOD: chosen(config)[0].name,
        names.ENV_RUN: str(config.run),
        names.ENV_OUTPUT_URI: config.store.uri,
        names.ENV_FINAL_URI: names.final_uri(config),
        "OUTPUT_DIR": output_dir(config),
        "HF_HOME": f"{env.CACHE_DIR}/huggingface",
        names.KUBEFLOW_URL: config.progress.url,
        names.KUBEFLOW_CA: env.PROGRESS_CA_PATH,
        names.KUBEFLOW_TOKEN: env.PROGRESS_TOKEN_PATH,
    }
    if config.spec.secrets.huggingface is not None:
        values["HF_TOKEN_PATH"] = f"{env.SECRETS_DIR}/{env.SECRET_HUGGINGFACE}/{env.HF_TOKEN_KEY}"
    if config.offline:
        values["HF_HUB_OFFLINE"] = "1"
    return values


def _hub(config: RunConfig) -> Iterator[Manifest]:
    """The token under the names programs read, and the hub's address: of the job's Secret, and only where it names one (X-01)."""
    if (named := config.spec.secrets.huggingface) is None:
        return
    keys = {"HF_TOKEN": env.HF_TOKEN_KEY, "HUGGINGFACE_HUB_TOKEN": env.HF_TOKEN_KEY, "HF_ENDPOINT": env.HF_ENDPOINT_KEY}
    for name, key in keys.items():
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": named.secret_ref.name, "key": key, "optional": True}}}


def _rank_group(config: RunConfig) -> list[Manifest]:
    """What torchrun reads (``PET_*``), and the same for programs that start their processes otherwise.

    With one process per pod each pod is a rank, so that a program without a launcher finds its own; a single process is told of no group:
    libraries would set one up.
    """
    group = config.topology
    nodes, processes, port = str(group.replicas), str(group.processes_per_replica), str(group.master_port)
    plain = {
        "NNODES": nodes,
        "NPROC_PER_NODE": processes,
        "WORLD_SIZE": str(group.world_size),
        "MASTER_ADDR": group.master_addr,
        "MASTER_PORT": port,
        "PET_NNODES": nodes,
        "PET_NPROC_PER_NODE": processes,
        "PET_MASTER_ADDR": group.master_addr,
        "PET_MASTER_PORT": port,
    }
    by_index = ["NODE_RANK", "PET_NODE_RANK"]
    if group.replicas > 1 and group.processes_per_replica == 1:
        by_index.append("RANK")
        plain |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    index = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": INDEX_FIELD}}} for name in by_index]
    return [*_plain(plain), *index]


def _store(config: RunConfig, settings: PlanSettings) -> Iterator[Manifest]:
    """Credentials and address of the store under the names S3 libraries read; the operator itself never sees the Secret."""
    own = config.spec.checkpoint.secret_ref
    secret = own.name if own is not None else settings.storage_secret
    known = {} if own is not None else {"AWS_ENDPOINT_URL": config.store.endpoint, "AWS_REGION": config.store.region}
    for name in (*FROM_SECRET, "AWS_ENDPOINT_URL", "AWS_REGION"):
        if value := known.get(name):
            yield {"name": name, "value": value}
        else:
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name, "optional": True}}}
