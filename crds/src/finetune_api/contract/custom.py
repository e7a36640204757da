"""What a TrainingMethod's program is told: the JSON file, and variables under the names its users know (requirements, source 000).

The progress protocol is Kubeflow Trainer's own, so that its variables are set, too; see :mod:`finetune_api.contract.progress`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from finetune_api.contract import env
from finetune_api.contract.base import ContractModel
from finetune_api.contract.run_config import CustomMethod, JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.training_method import MethodRef
from finetune_api.parameters import ParameterValue, parameter_problems, read_parameters
from finetune_api.problems import Problem

JOB_FILE = "/etc/finetune/job.json"
"""Holds :class:`JobDocument`."""
OUTPUT_CLAIM_DIR = "/mnt/output"
"""Where ``methodRef.outputClaim`` is mounted."""
KUBEFLOW_URL = "KUBEFLOW_TRAINER_SERVER_URL"
KUBEFLOW_CA = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
KUBEFLOW_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"
"""Read by transformers' KubeflowCallback (which then reports by itself) and by Kubeflow's SDK."""
ENV_JOB_FILE = "FINETUNE_JOB_FILE"
ENV_METHOD = "FINETUNE_METHOD"
ENV_OUTPUT_URI = "FINETUNE_OUTPUT_URI"
"""Prefix in the store that is this job's alone, the same in all of its runs."""
ENV_FINAL_URI = "FINETUNE_FINAL_URI"
"""Where the program leaves its result: status.artifacts.finalUri names it."""
ENV_RUN = "FINETUNE_RUN"
"""Number of the run: above 1 the program has been stopped before, or has failed."""


class JobDocument(ContractModel):
    """``/etc/finetune/job.json``."""

    contract_version: int
    job: JobIdentity
    run: int
    method: str
    parameters: dict[str, ParameterValue]
    """By the method's names, as numbers, flags and texts; defaults filled in."""
    spec: FineTuneJobSpec
    """The resolved job: every field that has a value."""
    topology: Topology
    store: StoreConfig
    output_dir: str
    output_uri: str
    final_uri: str


def job_document(config: RunConfig) -> JobDocument:
    """What the program of a run reads; ``config.custom`` is set."""
    custom, ref = chosen(config)
    return JobDocument(
        contract_version=config.contract_version,
        job=config.job,
        run=config.run,
        method=custom.name,
        parameters=read_parameters(custom.spec.parameters or (), ref.parameters or {}),
        spec=config.spec,
        topology=config.topology,
        store=config.store,
        output_dir=output_dir(config),
        output_uri=config.store.uri,
        final_uri=final_uri(config),
    )


def chosen(config: RunConfig) -> tuple[CustomMethod, MethodRef]:
    """The TrainingMethod a run is made from, and what the job says to it."""
    assert config.custom is not None and config.spec.method_ref is not None, "a run of a TrainingMethod carries both"  # noqa: PT018
    return config.custom, config.spec.method_ref


def output_dir(config: RunConfig) -> str:
    """Local directory for what the program writes; it may have to make it. On a claim it is the same in all runs of a job."""
    _, ref = chosen(config)
    return f"{OUTPUT_CLAIM_DIR}/{_own_folder(config)}" if ref.output_claim else f"{env.WORK_DIR}/output"


def final_uri(config: RunConfig) -> str:
    """Where the result is, once the program has ended well."""
    _, ref = chosen(config)
    return f"pvc://{ref.output_claim}/{_own_folder(config)}" if ref.output_claim else f"{config.store.uri}/final"


def _own_folder(config: RunConfig) -> str:
    """Never that of another job, nor of one that was deleted and made again."""
    return f"{config.job.name}-{config.job.uid}"


class Variable(NamedTuple):
    """A variable of source 000: what it is in a job."""

    path: str
    """Field of the job."""
    note: str
    """When it is not simply the field's value."""
    read: Callable[[FineTuneJobSpec], str | None]
    """None: not set."""


def _number(value: float | None) -> str | None:
    """Every digit of it."""
    return None if value is None else repr(value)


def _above_zero(value: int | None) -> str | None:
    return str(value) if value is not None and value > 0 else None


def place(uri: str | None) -> str | None:
    """An address as a program uses it: a path where the pod has it mounted, a repository's name for the hub, else the address."""
    scheme, _, rest = (uri or "").partition("://")
    match scheme:
        case "":
            return None
        case "pvc":
            return f"{env.PVC_DIR}/{rest}"
        case "configmap":
            return f"{env.CONFIGMAP_DIR}/{rest}"
        case "hf":
            return rest.partition("@")[0]
        case _:
            return uri


def revision(uri: str | None) -> str | None:
    """Revision in an address of the hub."""
    scheme, _, rest = (uri or "").partition("://")
    return rest.partition("@")[2] or None if scheme == "hf" else None


_FOUR_BIT = {"4bit": "true", "none": "false"}

VARIABLES: Mapping[str, Variable] = {
    "MODEL_PATH": Variable("model.uri", "hf:// as org/name, pvc:// as the mounted path, else the address", lambda s: place(s.model.uri)),
    "MODEL_REVISION": Variable("model.uri", "the revision of an hf:// address", lambda s: revision(s.model.uri)),
    "DATASET_PATH": Variable("dataset.uri", "as MODEL_PATH; configmap:// as the mounted file", lambda s: place(s.dataset.uri)),
    "DATASET_REVISION": Variable("dataset.uri", "the revision of an hf:// address", lambda s: revision(s.dataset.uri)),
    "DATASET_SPLIT": Variable("dataset.split", "", lambda s: s.dataset.split),
    "DATASET_CONFIG": Variable("dataset.config", "", lambda s: s.dataset.config),
    "EVAL_DATASET_PATH": Variable("dataset.evalUri", "as DATASET_PATH", lambda s: place(s.dataset.eval_uri)),
    "PROMPT_INPUT_COLUMN": Variable("dataset.promptColumn", "", lambda s: s.dataset.prompt_column),
    "PROMPT_OUTPUT_COLUMN": Variable("dataset.outputColumn", "", lambda s: s.dataset.output_column),
    "MAX_SAMPLES": Variable("dataset.maxSamples", "-1 for all", lambda s: str(s.dataset.max_samples or -1)),
    "MAX_INPUT_LENGTH": Variable("dataset.promptMaxLength", "", lambda s: _number(s.dataset.prompt_max_length)),
    "MAX_CONTENT_LENGTH": Variable("dataset.contentMaxLength", "", lambda s: _number(s.dataset.content_max_length)),
    "MAX_SEQ_LENGTH": Variable(
        "training.maxSeqLength", "not set for 0, the model's context", lambda s: _above_zero(s.training.max_seq_length)
    ),
    "LORA_RANK": Variable("adapter.rank", "with adapter.type lora", lambda s: str(s.adapter.rank) if s.adapter.type == "lora" else None),
    "LOAD_IN_4BIT": Variable("quantization.mode", "true or false; not set for auto", lambda s: _FOUR_BIT.get(s.quantization.mode)),
    "EPOCHS": Variable("training.epochs", "", lambda s: str(s.training.epochs)),
    "MAX_STEPS": Variable("training.maxSteps", "set above 0 only; wins over EPOCHS", lambda s: _above_zero(s.training.max_steps)),
    "BATCH_SIZE": Variable("training.batchSize", "rows per process", lambda s: str(s.training.batch_size)),
    "GRAD_ACCUM_STEPS": Variable("training.gradAccumSteps", "", lambda s: str(s.training.grad_accum_steps)),
    "LEARNING_RATE": Variable("training.learningRate", "", lambda s: _number(s.training.learning_rate)),
    "WARMUP_STEPS": Variable(
        "training.warmupSteps", "set above 0 only; wins over WARMUP_RATIO", lambda s: _above_zero(s.training.warmup_steps)
    ),
    "WARMUP_RATIO": Variable("training.warmupRatio", "", lambda s: _number(s.training.warmup_ratio)),
    "MAX_GRAD_NORM": Variable("training.maxGradNorm", "", lambda s: _number(s.training.max_grad_norm)),
}
"""Variables made from fields of the job, in the order they are documented. NUM_GENERATIONS of source 000 has no field that every method
knows: a method that wants it declares it as a parameter."""


def job_variables(spec: FineTuneJobSpec) -> dict[str, str]:
    """The variables of source 000 for a job: name -> value, those that are set."""
    found = {name: variable.read(spec) for name, variable in VARIABLES.items()}
    return {name: value for name, value in found.items() if value is not None}


def method_problems(method: CustomMethod, spec: FineTuneJobSpec) -> list[Problem]:
    """What is wrong with the parameters that a resolved job gives to its TrainingMethod."""
    written = (spec.method_ref.parameters if spec.method_ref is not None else None) or {}
    fields = {name: variable.path for name, variable in VARIABLES.items()}
    return parameter_problems(method.name, method.spec.parameters or (), written, fields)


def parameter_variables(config: RunConfig) -> dict[str, str]:
    """The method's own parameters as texts, defaults filled in."""
    custom, ref = chosen(config)
    written = ref.parameters or {}
    texts = {each.name: written.get(each.name, each.default) for each in custom.spec.parameters or ()}
    return {name: text for name, text in texts.items() if text is not None}
