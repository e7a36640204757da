"""Rules for where and how a job runs: ranks, tolerations, checkpoints kept, trackers, and what can never be left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_api import cel
from finetune_api.constants import EIGHT_BIT, MAX_JOB_NAME
from finetune_api.defaults import BASE
from finetune_api.rules.rule import Rule
from finetune_api.written import OWN, Written

_PROCESSES, _GPUS, _DEVICE = "resources.processesPerReplica", "resources.gpusPerReplica", "resources.device"
_STRATEGY, _GPU_TYPE = "distributed.strategy", "resources.gpuType"
_TOLERATIONS, _TRACKERS = "resources.tolerations", "logging.trackers"


def _ranks_per_pod(spec: Written) -> int:
    return int(spec[_PROCESSES] or (spec[_GPUS] if spec[_DEVICE] == "gpu" else 1))


def toleration_rules(path: str) -> tuple[Rule, ...]:
    """Rules on a list of tolerations: what Kubernetes would refuse only when the pods are made."""

    def entries(spec: Written) -> Iterable[Mapping[str, Any]]:
        return spec[path] or ()

    return (
        Rule(
            id="toleration-exists",
            requirement="L-02",
            path=path,
            message="an entry with operator Exists has no value; one without key has operator Exists",
            cel=cel.unless(
                path,
                f"self.{path}.all(entry, has(entry.operator) && entry.operator == 'Exists' "
                "? !has(entry.value) : has(entry.key) && entry.key != '')",
            ),
            holds=lambda spec: all(
                "value" not in entry if entry.get("operator") == "Exists" else bool(entry.get("key")) for entry in entries(spec)
            ),
        ),
        Rule(
            id="toleration-seconds",
            requirement="L-02",
            path=path,
            message="tolerationSeconds goes with effect NoExecute only",
            cel=cel.unless(
                path, f"self.{path}.all(entry, !has(entry.tolerationSeconds) || has(entry.effect) && entry.effect == 'NoExecute')"
            ),
            holds=lambda spec: all("tolerationSeconds" not in entry or entry.get("effect") == "NoExecute" for entry in entries(spec)),
        ),
    )


_ONE_PER_DEVICE = cel.any_of(f"{cel.value(_DEVICE)} == 'cpu'", f"{cel.value(_GPUS)} <= 1")
_ONE_RANK_PER_POD = f"({cel.has(_PROCESSES)} ? {cel.value(_PROCESSES, 1)} <= 1 : ({_ONE_PER_DEVICE}))"

RUNNING_RULES = (
    Rule(
        id="processes-per-gpu",
        requirement="M-01",
        path=_PROCESSES,
        message="must not exceed resources.gpusPerReplica on gpu; each rank needs a GPU of its own",
        cel=cel.any_of(f"{cel.value(_DEVICE)} != 'gpu'", f"{cel.value(_PROCESSES, 1)} <= {cel.value(_GPUS)}"),
        holds=lambda spec: spec[_DEVICE] != "gpu" or (spec[_PROCESSES] or 1) <= spec[_GPUS],
        open=(_DEVICE, _GPUS),
    ),
    Rule(
        id="strategy-none",
        requirement="X34",
        path=_STRATEGY,
        message="none is for a single rank; with more (replicas x processesPerReplica) write ddp, another strategy or auto",
        cel=cel.any_of(f"{cel.value(_STRATEGY)} != 'none'", cel.all_of(f"{cel.value('replicas')} <= 1", _ONE_RANK_PER_POD)),
        holds=lambda spec: spec[_STRATEGY] != "none" or (spec["replicas"] <= 1 and _ranks_per_pod(spec) <= 1),
        open=(_DEVICE, _GPUS, _PROCESSES),
        job_only=True,
    ),
    Rule(
        id="strategy-fsdp-ranks",
        requirement="M-01",
        path=_STRATEGY,
        message="fsdp splits the model over ranks and needs at least two (replicas x processesPerReplica); for one write none, or "
        "zero3_offload to use main memory",
        cel=cel.any_of(f"{cel.value(_STRATEGY)} != 'fsdp'", f"{cel.value('replicas')} != 1", cel.negate(_ONE_RANK_PER_POD)),
        holds=lambda spec: spec[_STRATEGY] != "fsdp" or spec["replicas"] != 1 or _ranks_per_pod(spec) > 1,
        open=(_DEVICE, _GPUS, _PROCESSES),
        job_only=True,
    ),
    Rule(
        id="strategy-optimized-backend",
        requirement="B-12 M-06 X35 AC-42",
        path=_STRATEGY,
        message="training.backend optimized works on whole copies: leave the strategy out, write none or ddp, or set training.backend to "
        "standard",
        cel=cel.any_of(f"{cel.value('training.backend')} != 'optimized'", f"{cel.value(_STRATEGY)} in ['auto', 'none', 'ddp']"),
        holds=lambda spec: spec["training.backend"] != "optimized" or spec[_STRATEGY] in ("auto", "none", "ddp"),
        open=("training.backend",),
    ),
    Rule(
        id="optimized-backend-method",
        requirement="B-12 AC-42",
        path="training.backend",
        message="optimized is for methods sft and pretrain; leave it out, or set it to standard",
        cel=cel.any_of(f"{cel.value('training.backend')} != 'optimized'", f"{cel.method(OWN)} in ['sft', 'pretrain']"),
        holds=lambda spec: spec["training.backend"] != "optimized" or spec.method in ("sft", "pretrain"),
        open=("method", "training.backend"),
    ),
    Rule(
        id="strategy-fsdp-optimizer",
        requirement="M-01 F-14",
        path=_STRATEGY,
        message="fsdp cannot split the states of 8-bit optimizers; set training.optimizer to adamw_torch, or write zero2 or zero3",
        cel=cel.any_of(f"{cel.value(_STRATEGY)} != 'fsdp'", f"!({cel.value('training.optimizer')} in {cel.literal(EIGHT_BIT)})"),
        holds=lambda spec: spec[_STRATEGY] != "fsdp" or spec["training.optimizer"] not in EIGHT_BIT,
        open=("training.optimizer",),
    ),
    *toleration_rules(_TOLERATIONS),
    Rule(
        id="gpu-type-device",
        requirement="L-01 L-02",
        path=_GPU_TYPE,
        message="is for GPUs: leave it out, or set resources.device to gpu",
        cel=cel.any_of(f"!{cel.has(_GPU_TYPE)}", f"{cel.value(_DEVICE)} == 'gpu'"),
        holds=lambda spec: not spec.has(_GPU_TYPE) or spec[_DEVICE] == "gpu",
        open=(_DEVICE,),
    ),
    Rule(
        id="keep-last-remote",
        requirement="X19 R-04",
        path="checkpoint.keepLast",
        message=f"must not exceed checkpoint.keepLastRemote ({BASE['checkpoint.keepLastRemote']} unless set)",
        cel=f"{cel.value('checkpoint.keepLast')} <= {cel.value('checkpoint.keepLastRemote')}",
        holds=lambda spec: spec["checkpoint.keepLast"] <= spec["checkpoint.keepLastRemote"],
        open=("checkpoint.keepLast", "checkpoint.keepLastRemote"),
    ),
    Rule(
        id="tracker-server",
        requirement="T-03",
        path=_TRACKERS,
        message="an entry of type mlflow needs uri, the address of its server",
        cel=cel.unless(_TRACKERS, f"self.{_TRACKERS}.all(entry, entry.type != 'mlflow' || has(entry.uri))"),
        holds=lambda spec: all(entry["type"] != "mlflow" or "uri" in entry for entry in spec[_TRACKERS]),
    ),
    Rule(
        id="tracker-secret",
        requirement="T-03",
        path=_TRACKERS,
        message="an entry of type wandb needs secretRef, a Secret with WANDB_API_KEY",
        cel=cel.unless(_TRACKERS, f"self.{_TRACKERS}.all(entry, entry.type != 'wandb' || has(entry.secretRef))"),
        holds=lambda spec: all(entry["type"] != "wandb" or "secretRef" in entry for entry in spec[_TRACKERS]),
    ),
    Rule(
        id="tracker-once",
        requirement="T-03",
        path=_TRACKERS,
        message="each type may be there once: a second entry's credentials would go to the first one's server; take one of them out",
        cel=cel.unless(_TRACKERS, f"self.{_TRACKERS}.all(entry, self.{_TRACKERS}.exists_one(other, other.type == entry.type))"),
        holds=lambda spec: len({entry["type"] for entry in spec[_TRACKERS]}) == len(spec[_TRACKERS]),
        before_run=True,
    ),
)


class SchemaRule(NamedTuple):
    """A rule only the API server can judge, or one on the object around the spec."""

    id: str
    requirement: str
    cel: str
    message: str


CANCELLED_IS_FINAL = SchemaRule(
    id="cancelled-final",
    requirement="Q-07 P-10",
    cel="oldSelf != 'Cancelled' || self == 'Cancelled'",
    message="Cancelled is final; to train again, create a job with another name",
)
"""On the field desiredState."""

JOB_NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
JOB_NAME = SchemaRule(
    id="job-name",
    requirement="J-01 J-02 X43",
    cel=f"self.metadata.name.size() <= {MAX_JOB_NAME} && self.metadata.name.matches('{JOB_NAME_PATTERN}')",
    message=f"must have at most {MAX_JOB_NAME} characters, start with a letter and hold only a-z, 0-9 and -, "
    "since Services are named after it",
)
"""On the whole object."""
