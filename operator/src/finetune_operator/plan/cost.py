"""What a run may cost before it starts, from what preflight found, what was measured, and the constants of the installation.

Training takes what :mod:`finetune_api.duration` says, and once the job has trained, what its steps took. Both are rough: a job that takes
longer goes on while its Budget has something left.
"""

from __future__ import annotations

from decimal import Decimal

from finetune_api.contract.run_config import RunConfig
from finetune_api.duration import Work, training_seconds
from finetune_api.models.estimate import CostEstimate, Estimate
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.pricing import cost_of, cost_range, from_rate_seconds, shown
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.usage import gpu_seconds
from finetune_operator.plan.workload import count_devices


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
    if estimate.memory is None or gpu_type.tflops is None:
        return None
    found = estimate.dataset
    tokens = found.tokens_p95 if found is not None and found.token_rows else None
    work = Work(left, config.topology.world_size, gpus, estimate.memory.parameters, tokens, estimate.memory.sequence_tokens)
    return training_seconds(config.spec, work, tflops=gpu_type.tflops, utilization=draft.settings.billing.utilization)


def _planned(draft: Draft) -> int | None:
    """Optimizer steps as the trainer counted them, where preflight could not."""
    progress = draft.status.progress
    return progress.total_steps if progress is not None and progress.total_steps > 0 else None
