"""The part of preflight that says whether a pod's disk will do, where the job sets a limit to it (J-06)."""

from __future__ import annotations

import math
from typing import Final

from finetune_api.contract.run_config import RunConfig
from finetune_api.quantities import number_of
from finetune_api.strategies import REPLICATED
from finetune_trainer.errors import configuration_error
from finetune_trainer.estimate.memory import GIB
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.remote_model import remote_files
from finetune_trainer.supervisor.companions import companion_models
from finetune_trainer.supervisor.environment import Secrets, model_source
from finetune_trainer.verbs.findings import Findings

DISK_CONDITION: Final = "DiskTooSmall"
MOUNTED: Final = ("pvc", "configmap")
"""Schemes of what is used where it lies."""
WEIGHTS: Final = ".safetensors"


def check_disk(config: RunConfig, secrets: Secrets, context: SourceContext, found: Findings) -> dict[str, str]:
    """Compare what is known to lie on a pod's disk with the limits of the job; rows and small files come on top.

    The need goes to ``found``. Raises :class:`TrainerError` (ConfigurationError) when the weights alone do not fit into
    ``cache.sizeLimit``: the pod would be evicted while it fetches them. A ``resources.ephemeralStorage`` that is too small is warned of.
    """
    spec = config.spec
    models = sum(weight_bytes(source, context) for source in _models(config, secrets))
    limit = spec.cache.size_limit if spec.cache.claim_name is None else None
    if limit is not None and number_of(limit) < models:
        least = math.ceil(models / GIB)
        raise configuration_error(
            f"cache.sizeLimit {limit}: the weights that each pod fetches take {models / GIB:.1f} GiB: set it to more than {least}Gi "
            "(the data lies there as well), or use cache.claimName."
        )
    fetched = models if spec.cache.claim_name is None else 0
    checkpoints, copies = _checkpoint_bytes(config, found)
    needed = fetched + checkpoints
    if found.training is not None and needed:
        found.training = found.training.model_copy(update={"disk_bytes": needed})
    asked = spec.resources.ephemeral_storage
    if asked is None or number_of(asked) >= needed:
        return {}
    least = math.ceil(needed / GIB)
    return {
        DISK_CONDITION: f"resources.ephemeralStorage {asked}: a pod will need at least {needed / GIB:.1f} GiB of disk, "
        f"{checkpoints / GIB:.1f} for {copies} checkpoints (checkpoint.keepLast {spec.checkpoint.keep_last}, and the one that is written) "
        f"and {fetched / GIB:.1f} for weights: set it to more than {least}Gi, lower checkpoint.keepLast, or use cache.claimName."
    }


def weight_bytes(source: Source, context: SourceContext) -> int:
    """Bytes of the weights that are fetched from ``source``; 0 where they are not copied, or cannot be looked at (https)."""
    files = remote_files(source, context) if source.scheme not in MOUNTED else None
    if files is None:
        return 0
    return sum(size for name, size in files.sizes.items() if name.endswith(WEIGHTS) and "/" not in name)


def _models(config: RunConfig, secrets: Secrets) -> list[Source]:
    spec = config.spec
    beside = {uri: Source(uri, role, secrets.model, spec.model.region) for role, uri in companion_models(spec) if uri != spec.model.uri}
    return [model_source(spec, secrets), *beside.values()]


def _checkpoint_bytes(config: RunConfig, found: Findings) -> tuple[int, int]:
    """(bytes on the disk of the pod that has most, how many checkpoints); nothing where their size is not known."""
    if found.verdict is None or config.spec.checkpoint.strategy == "no":
        return 0, 0
    written = found.training.checkpoints if found.training is not None else None
    kept = config.spec.checkpoint.keep_last + 1
    copies = min(kept, written) if written is not None else kept
    size = found.verdict.checkpoint
    return copies * (size if found.verdict.strategy in REPLICATED else size // config.topology.replicas), copies
