"""What a run may cost before it starts, from what preflight found, what was measured, and the constants of the installation.

Training: optimizer steps x rows x tokens x 6 FLOPs for each parameter and token (8 where the weights themselves are trained), at a share of
what the GpuType's arithmetic gives; once the job has trained, the seconds its steps took. Both are rough: a job that takes longer goes on
while its Budget has something left.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from finetune_api.contract.run_config import RunConfig
from finetune_api.models.estimate import CostEstimate, Estimate
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.pricing import cost_of, cost_range, from_rate_seconds, shown
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.usage import gpu_seconds
from finetune_operator.plan.workload import count_devices

FLOPS_OF_ADAPTER: Final = 6
FLOPS_OF_ALL: Final = 8
PASSES: Final = {"sft": 1.0, "pretrain": 1.0, "reward": 2.0, "dpo": 3.0, "kto": 1.5}
"""Method -> how many times a row is computed, next to sft; not of methods that generate."""


def price_of(config: RunConfig) -> GpuTypeSpec | None:
    """The GpuType of a run, if it has a price."""
    gpu_type = config.gpu_type.spec if config.gpu_type is not None else None
    return gpu_type if gpu_type is not None and gpu_type.hourly_rate is not None else None


def estimate_cost(draft: Draft, config: RunConfig, gpu_type: GpuTypeSpec) -> CostEstimate | None:
    """What the job will have cost in all after its next run; None where nothing bounds it."""
    rate, gpus, usage = gpu_type.hourly_rate, count_devices(config), draft.status.usage
    assert rate is not None, "only of a run with a price"
    used = from_rate_seconds(usage.rate_seconds)
    most = _by_limit(draft, rate)
    seconds = seconds_left(draft.status.estimate or Estimate(), config, gpu_type, draft)
    if seconds is None:
        return None if most is None else CostEstimate(low=shown(used), high=shown(used + most), currency=gpu_type.currency)
    low, high = cost_range(seconds, rate, gpus, draft.settings.billing)
    if most is not None:
        low, high = min(low, most), min(high, most)
    return CostEstimate(low=shown(used + low), high=shown(used + high), currency=gpu_type.currency, training_seconds=round(seconds))


def _by_limit(draft: Draft, rate: str) -> Decimal | None:
    """What is left of limits.maxGpuHours costs this much."""
    hours = (draft.job.spec.get("limits") or {}).get("maxGpuHours")
    if hours is None:
        return None
    left = Decimal(str(hours)) * 3600 - Decimal(str(gpu_seconds(draft.status.usage)))
    return cost_of(max(Decimal(0), left), rate)


def seconds_left(estimate: Estimate, config: RunConfig, gpu_type: GpuTypeSpec, draft: Draft) -> float | None:
    """Seconds of training that are left for all GPUs of the run together; None where they cannot be reckoned."""
    steps = estimate.training.steps if estimate.training is not None else _planned(draft)
    if steps is None:
        return None
    latest = draft.status.checkpoints.latest
    done = latest.step if latest is not None else 0
    left = max(0, steps - done)
    gpus, productive = count_devices(config), draft.status.usage.productive_seconds
    if done and productive:
        return productive / done * left / gpus
    method, training = config.spec.method, config.spec.training
    if estimate.memory is None or gpu_type.tflops is None or method not in PASSES:
        return None
    found = estimate.dataset
    longest = training.max_seq_length
    whole_rows = found is not None and found.token_rows and not config.spec.dataset.packing
    tokens = min(longest, found.tokens_p95) if found is not None and whole_rows else longest
    rows = training.batch_size * training.grad_accum_steps * config.topology.world_size
    flops = FLOPS_OF_ALL if config.spec.adapter.type == "full" else FLOPS_OF_ADAPTER
    work = left * rows * tokens * flops * estimate.memory.parameters * PASSES[method]
    return work / (gpus * gpu_type.tflops * 1e12 * draft.settings.billing.utilization)


def _planned(draft: Draft) -> int | None:
    """Optimizer steps as the trainer counted them, where preflight could not."""
    progress = draft.status.progress
    return progress.total_steps if progress is not None and progress.total_steps > 0 else None
