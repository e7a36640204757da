"""The part of preflight that says whether a training fits its GPUs: from config.json and headers, before a GPU is asked for."""

from __future__ import annotations

import json
import math
from typing import Final

from finetune_api.contract.preflight import MemoryFacts
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import Pinned
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.quantities import number_of
from finetune_trainer.errors import configuration_error
from finetune_trainer.estimate.decision import DECIDED_CONDITION, Verdict, decide, refusal
from finetune_trainer.estimate.gpu import asked_bytes
from finetune_trainer.estimate.memory import GIB, Footprint, loading_bytes, pod_bytes
from finetune_trainer.estimate.shape import (
    AdapterShape,
    ModelShape,
    adapted_modules,
    adapter_shape,
    check_targets,
    read_shape,
    shape_of_file,
)
from finetune_trainer.sources.adapter_directory import ADAPTER_CONFIG
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.remote_model import read_remote, remote_files
from finetune_trainer.sources.resolve import fetch_json
from finetune_trainer.store.base import Store
from finetune_trainer.supervisor.attempt import read_pinned
from finetune_trainer.supervisor.environment import Secrets, attached_source, model_source
from finetune_trainer.verbs.findings import Findings

MEMORY_CONDITION: Final = "MemoryTooSmall"
TARGETS: Final = 256
"""Characters of names that are told at most."""


def check_memory(config: RunConfig, secrets: Secrets, context: SourceContext, store: Store, found: Findings) -> dict[str, str]:
    """A training must fit the GPU that ``resources.gpuMemory`` names; facts go to ``found``, the choice between ways to the warnings.

    ``resources.memory`` that is too small for what is loaded or offloaded is warned of (M-04).
    Nothing is said of models whose files have no headers. What an earlier attempt pinned is not judged again: it has run.
    Raises :class:`TrainerError`: ModelError for an adapter on modules the model does not have, ConfigurationError with every term when no
    way fits (N-05).
    """
    model = model_shape(config, secrets, context)
    if model is None:
        return {}
    pinned = read_pinned(store)
    is_pinned = pinned is not None and pinned.strategy is not None
    spec = _as_pinned(config.spec, pinned) if pinned is not None and is_pinned else config.spec
    adapter = _adapter(config, secrets, context)
    if spec.adapter.type == "lora":
        check_targets(model, adapter)
    group, counted = config.topology, found.dataset
    longest_row = counted.tokens_max if counted is not None and counted.token_rows else None
    verdict = decide(spec, model, adapter, ranks=group.world_size, gpu_bytes=asked_bytes(spec.resources), longest_row=longest_row)
    found.verdict = verdict
    loading = loading_bytes(spec, model, verdict.plan, processes=group.processes_per_replica)
    if verdict.memory is None:
        return _loading_warning(spec, loading)
    needed = pod_bytes(
        spec,
        strategy=verdict.strategy,
        parameters=verdict.parameters,
        trainable=verdict.trainable,
        ranks=group.world_size,
        processes=group.processes_per_replica,
    )
    modules = adapted_modules(model, adapter) if spec.adapter.type == "lora" else []
    found.memory = _facts(verdict, verdict.memory, needed, modules)
    warnings = _main_memory_warning(spec, verdict, needed) or _loading_warning(spec, loading)
    if is_pinned or verdict.fits is None:
        return warnings
    if not verdict.fits:
        raise configuration_error(refusal(verdict))
    is_chosen = spec.quantization.mode == "auto" and spec.adapter.type == "lora"
    return {**warnings, **({DECIDED_CONDITION: found.memory.reason} if is_chosen else {})}


def model_shape(config: RunConfig, secrets: Secrets, context: SourceContext) -> ModelShape | None:
    """The model's shape; None where its files have no headers or cannot be looked at."""
    files = remote_files(model_source(config.spec, secrets), context)
    return read_shape(files) if files is not None else None


def _adapter(config: RunConfig, secrets: Secrets, context: SourceContext) -> AdapterShape:
    spec, attached = config.spec, attached_source(config.spec, secrets)
    if attached is not None:
        document = read_remote(attached, context, ADAPTER_CONFIG)
        return shape_of_file(json.loads(document)) if document is not None else adapter_shape(spec.adapter, None)
    if spec.adapter.peft_config is None:
        return adapter_shape(spec.adapter, None)
    source = Source(spec.adapter.peft_config, "adapter.peftConfig", secrets.model, spec.model.region)
    return adapter_shape(spec.adapter, fetch_json(source, context))


def _as_pinned(spec: FineTuneJobSpec, pinned: Pinned) -> FineTuneJobSpec:
    """The job as it has been trained so far."""
    distributed = spec.distributed.model_copy(update={"strategy": pinned.strategy})
    quantization = spec.quantization.model_copy(update={"mode": pinned.quantization or "none"})
    return spec.model_copy(update={"distributed": distributed, "quantization": quantization})


def _main_memory_warning(spec: FineTuneJobSpec, verdict: Verdict, needed: int | None) -> dict[str, str]:
    """Warn of ``resources.memory`` that what is offloaded does not fit into; the kernel would end the pod."""
    written = spec.resources.memory
    if needed is None or written is None or number_of(written) >= needed:
        return {}
    least = math.ceil(needed / GIB)
    return {
        MEMORY_CONDITION: f"resources.memory {written}: strategy {verdict.strategy} keeps optimizer state in main memory, and a pod will "
        f"need about {least} GiB of it: set it to {least}Gi or more, leave it unset (then that much is requested), or use more replicas."
    }


def _loading_warning(spec: FineTuneJobSpec, needed: int) -> dict[str, str]:
    """Warn of ``resources.memory`` that the weights alone do not fit into; the kernel would end the pod while it loads them."""
    written = spec.resources.memory
    if written is None or number_of(written) >= needed:
        return {}
    copies = "each rank of a pod holds a copy of the weights" if spec.resources.device == "cpu" else "a pod loads the weights once"
    return {
        MEMORY_CONDITION: f"resources.memory {written}: {copies}, {needed / GIB:.1f} GiB of main memory: set it to more than "
        f"{math.ceil(needed / GIB)}Gi, or leave it unset."
    }


def _facts(verdict: Verdict, memory: Footprint, needed: int | None, modules: list[str]) -> MemoryFacts:
    beside = f"; about {needed / GIB:.1f} GiB of main memory per pod for what {verdict.strategy} keeps there" if needed is not None else ""
    return MemoryFacts(
        parameters=verdict.parameters,
        trainable_parameters=verdict.trainable,
        target_modules=",".join(modules)[:TARGETS],
        sequence_tokens=verdict.sequence,
        strategy=verdict.strategy,
        quantization="4bit" if verdict.is_quantized else "none",
        terms=memory.terms(),
        total_bytes=memory.total,
        gpu_bytes=verdict.available,
        pod_bytes=needed,
        reason=verdict.reason + beside,
    )
