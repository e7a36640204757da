"""The rank group of a run, and what a change of its size means for the global batch."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.constants import run_name
from finetune_api.contract.env import MASTER_PORT
from finetune_api.contract.run_config import Topology
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import processes_per_replica
from finetune_operator.plan.observed import JobObject, LastRun

MAX_GRAD_ACCUM_STEPS = 256
MAX_REPLICAS = 64
GRAD_ACCUM = "training.gradAccumSteps"


def build_topology(job: JobObject, spec: FineTuneJobSpec, run: int) -> Topology:
    """Where the ranks of a run are and how they meet."""
    name = run_name(job.name, run)
    return Topology(
        replicas=spec.replicas,
        processes_per_replica=processes_per_replica(spec),
        device=spec.resources.device,
        master_addr="localhost" if spec.replicas == 1 else f"{name}-0.{name}.{job.namespace}.svc",
        master_port=MASTER_PORT,
    )


def gpus_of(spec: FineTuneJobSpec) -> int:
    """GPUs of all pods together; 0 on CPU."""
    return spec.replicas * spec.resources.gpus_per_replica if spec.resources.device == "gpu" else 0


class Fit(NamedTuple):
    """Accumulation steps that keep the global batch, or why there are none."""

    grad_accum_steps: int
    problem: str = ""


def fit_global_batch(spec: FineTuneJobSpec, last: LastRun | None) -> Fit:
    """Keep batchSize x gradAccumSteps x ranks what it was: then a step means the same data, and the step count is the position.

    A resize adjusts the accumulation steps. An edit of gradAccumSteps itself that would change the product is refused.
    """
    wanted = spec.training.grad_accum_steps
    if last is None:
        return Fit(wanted)
    before = last.config
    total = before.spec.training.batch_size * before.spec.training.grad_accum_steps * before.topology.world_size
    per_step = spec.training.batch_size * spec.replicas * processes_per_replica(spec)
    if per_step * wanted == total:
        return Fit(wanted)
    needed, rest = divmod(total, per_step)
    fits = rest == 0 and 1 <= needed <= MAX_GRAD_ACCUM_STEPS
    if last.asked.get(GRAD_ACCUM, before.spec.training.grad_accum_steps) != wanted:
        fix = f"write {needed}" if fits else _nearest(spec, total)
        return Fit(wanted, f"spec.{GRAD_ACCUM} is {wanted}, which changes the global batch from {total} to {per_step * wanted}; {fix}")
    if not fits:
        return Fit(
            wanted, f"the global batch of {total} rows cannot be kept with {per_step} rows per accumulation step; {_nearest(spec, total)}"
        )
    return Fit(needed)


def _nearest(spec: FineTuneJobSpec, total: int) -> str:
    """The sizes next to the wanted one that do keep the batch."""
    batch, processes = spec.training.batch_size, processes_per_replica(spec)
    fitting = [
        replicas
        for replicas in range(1, MAX_REPLICAS + 1)
        if total % (batch * processes * replicas) == 0 and total // (batch * processes * replicas) <= MAX_GRAD_ACCUM_STEPS
    ]
    if not fitting:
        return (
            f"with batchSize {batch} and {processes} ranks per pod no number of replicas keeps it: choose a batchSize that divides {total}"
        )
    nearest = sorted(sorted(fitting, key=lambda replicas: abs(replicas - spec.replicas))[:3])
    return f"replicas that keep it with batchSize {batch}: {', '.join(map(str, nearest))}"
