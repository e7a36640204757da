"""The preset ``auto``: numbers from the memory of the job's GPUs and the rows of its Dataset, each with its reason (K-11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from finetune_api.constants import CLUSTER_PRESET_KIND
from finetune_api.quantities import number_of
from finetune_api.resolve import Resolution, flatten, unflatten
from finetune_api.suggestions import FEW_ROWS, GIB, MANY_ROWS, epochs_band

AUTO: Final = "auto"
ROWS_PER_STEP: Final = 16
"""Rows of an optimizer step and rank, as near as the job's own batch allows."""


class Tier(NamedTuple):
    """What suits GPUs of some memory (appendix 3 of the requirements)."""

    least: int
    """GiB from which on it counts."""
    batch_size: int
    """With LoRA."""
    max_steps: int
    learning_rate: float
    """With LoRA."""


TIERS: Final = (Tier(0, 1, 60, 1e-4), Tier(8, 2, 100, 1e-4), Tier(16, 4, 200, 2e-4), Tier(24, 8, 500, 2e-4))
TUNED: Final[Mapping[str, str]] = {
    "training.batchSize": "by GPU memory",
    "training.gradAccumSteps": f"{ROWS_PER_STEP} rows per step",
    "training.maxSteps": "by GPU memory",
    "training.learningRate": "by GPU memory",
    "training.epochs": "by number of rows",
    "dataset.evalRatio": "by number of rows",
}
"""Path of each field it sets -> what it goes by."""


class Tuning(NamedTuple):
    """What the preset comes to for one job."""

    values: Mapping[str, Any]
    """By path."""
    reasons: Mapping[str, str]
    """Path -> why this value."""
    notes: tuple[str, ...]
    """What it did not know, and how to tell it."""

    def over(self, preset: Mapping[str, Any]) -> dict[str, Any]:
        """The preset as it is written, completed."""
        return unflatten({**self.values, **flatten(preset)})


def share_of(rows: int) -> float:
    """Share of so many rows to evaluate on: within what is recommended (E-20), also where nothing is."""
    return 0.05 if rows > MANY_ROWS else 0.1


def is_auto(kind: str, name: object) -> bool:
    """Whether a preset is the one that is reckoned: that of the cluster; a FineTunePreset of this name is one like others."""
    return (kind, name) == (CLUSTER_PRESET_KIND, AUTO)


def tune(before: Resolution, rows: int | None) -> Tuning:
    """Reckon the preset.

    Args:
        before: the job, resolved with the preset as it is written. What job or preset say themselves is left alone.
        rows: rows of the job's data, where they are known.
    """
    spec, notes = before.spec, []
    written = {path for path, source in before.sources.items() if source in ("job", "preset")}
    tier, memory = _tier(before)
    values: dict[str, Any] = {"training.maxSteps": tier.max_steps}
    reasons = {"training.maxSteps": memory}
    if spec.adapter.type == "lora":
        values |= {"training.batchSize": tier.batch_size, "training.learningRate": tier.learning_rate}
        reasons |= {"training.batchSize": memory, "training.learningRate": memory}
    else:
        values["training.batchSize"], reasons["training.batchSize"] = 1, "all weights are trained"
    if spec.method == "kto" and values["training.batchSize"] < 2:
        values["training.batchSize"], reasons["training.batchSize"] = 2, "method kto compares rows of a batch"
    batch = spec.training.batch_size if "training.batchSize" in written else values["training.batchSize"]
    accumulation = max(1, ROWS_PER_STEP // batch)
    values["training.gradAccumSteps"] = accumulation
    reasons["training.gradAccumSteps"] = f"{batch * accumulation} rows per optimizer step and rank"
    of_rows, why = _by_rows(before, rows)
    values |= of_rows
    reasons |= why
    if spec.resources.device == "gpu" and spec.resources.gpu_memory is None and not {*reasons} <= written:
        notes.append(
            f"Preset {AUTO}: the memory of the GPUs is not known, so it takes what suits less than {TIERS[1].least} GiB; "
            "choose resources.gpuType (kubectl finetune gpus), or write resources.gpuMemory."
        )
    if rows is None and not spec.dataset.streaming and not {"training.epochs", "dataset.evalRatio"} <= written:
        notes.append(
            f"Preset {AUTO}: the number of rows is not known, so training.epochs and dataset.evalRatio keep their defaults; "
            "name the data by a Dataset (dataset.uri ref:NAME), which counts them."
        )
    own = {path: value for path, value in values.items() if path not in written}
    return Tuning(own, {path: reasons[path] for path in own}, tuple(notes))


def _tier(before: Resolution) -> tuple[Tier, str]:
    """What suits the job's GPUs, and why."""
    resources = before.spec.resources
    if resources.device == "cpu":
        return TIERS[0], "on CPU"
    if resources.gpu_memory is None:
        return TIERS[0], f"GPU memory not known: as below {TIERS[1].least} GiB"
    gib = float(number_of(resources.gpu_memory)) / GIB
    index = max(index for index, tier in enumerate(TIERS) if gib >= tier.least)
    upper = TIERS[index + 1].least if index + 1 < len(TIERS) else math.inf
    band = f"{TIERS[index].least} GiB and more" if upper == math.inf else f"{TIERS[index].least} to below {upper} GiB"
    of_type = f"GpuType {resources.gpu_type}: " if before.sources.get("resources.gpuMemory") == "gpuType" else ""
    return TIERS[index], f"{of_type}{resources.gpu_memory} of GPU memory ({band})"


def _by_rows(before: Resolution, rows: int | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What follows from the number of rows, and why."""
    spec = before.spec
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    has_own = spec.dataset.eval_uri is not None or spec.dataset.train_ratio is not None or spec.dataset.streaming
    if rows is not None and spec.method is not None and not has_own:
        values["dataset.evalRatio"], reasons["dataset.evalRatio"] = share_of(rows), _band_of(rows)
    if rows is not None and spec.method != "grpo":
        values["training.epochs"], reasons["training.epochs"] = int(epochs_band(rows).low), _band_of(rows)
    return values, reasons


def _band_of(rows: int) -> str:
    band = f"below {FEW_ROWS}" if rows < FEW_ROWS else f"above {MANY_ROWS}" if rows > MANY_ROWS else f"{FEW_ROWS} to {MANY_ROWS}"
    return f"{rows} rows ({band})"
