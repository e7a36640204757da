"""The part of preflight that says how long a training will be and what it will leave, from the rows and the model that were looked at."""

from __future__ import annotations

from finetune_api.contract.preflight import TrainingFacts
from finetune_api.contract.run_config import RunConfig
from finetune_api.length import length_of, trained_rows
from finetune_api.suggestions import SINGLE_GPU, single_gpu
from finetune_trainer.errors import configuration_error
from finetune_trainer.verbs.findings import Findings


def check_length(config: RunConfig, found: Findings) -> dict[str, str]:
    """Put steps and checkpoints (O-15) and their size (J-06) into ``found``; returns advice.

    Raises :class:`TrainerError` (ConfigurationError) when the answers of a step do not make whole groups.
    """
    spec, ranks = config.spec, config.topology.world_size
    if spec.method is None:
        return {}
    data = found.dataset
    rows = trained_rows(spec, data.examples) if data is not None and data.is_whole else None
    try:
        length = length_of(spec, rows=rows, world_size=ranks)
    except ValueError as error:
        raise configuration_error(str(error)) from error
    size = found.verdict.checkpoint if found.verdict is not None else None
    if length is not None:
        written, limits = length.checkpoints, spec.checkpoint
        kept, stored = (most if written is None else min(written, most) for most in (limits.keep_last, limits.keep_last_remote))
        weights = found.verdict.stripped if found.verdict is not None else 0
        found.training = TrainingFacts(
            steps=length.steps,
            stop_by=length.stop_by,
            checkpoints=length.checkpoints,
            checkpoint_bytes=size,
            kept_bytes=size * kept if size is not None else None,
            store_bytes=size * min(kept, stored) + weights * max(0, stored - kept) if size is not None else None,
        )
    if data is None or found.verdict is None or not data.is_whole or spec.resources.device == "cpu":
        return {}
    advice = single_gpu(rows=data.examples, parameters=found.verdict.parameters, ranks=ranks)
    return {SINGLE_GPU: advice} if advice else {}
