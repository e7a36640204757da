"""Which modules a LoRA adapter sits on: names and shorthands, checked against the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import LORA_MODULES, Adapter
from finetune_trainer.errors import TrainerError, configuration_error

ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP: Final = ("gate_proj", "up_proj", "down_proj")
SHORTHANDS: Final[dict[str, tuple[str, ...]]] = {"basic": ("q_proj", "v_proj"), "enhanced": ATTENTION, "full": ATTENTION + MLP}
ALL_LINEAR: Final = "all-linear"


def target_modules(adapter: Adapter) -> list[str] | str:
    """Spell out a shorthand; ``all-linear`` is PEFT's own word (G-07 to G-09).

    Raises :class:`TrainerError` (ConfigurationError) for a name that is not known and not allowed.
    """
    names = adapter.target_modules
    if names == [ALL_LINEAR]:
        return ALL_LINEAR
    if len(names) == 1 and names[0] in SHORTHANDS:
        return list(SHORTHANDS[names[0]])
    unknown = [name for name in names if name not in LORA_MODULES]
    if unknown and not adapter.allow_custom_modules:
        raise configuration_error(
            f"adapter.targetModules: {', '.join(unknown)} is none of {', '.join(LORA_MODULES)}; basic, enhanced, full and all-linear each "
            "stand alone; set adapter.allowCustomModules for other modules of the model"
        )
    return list(names)


def check_modules(wanted: Iterable[str], available: Collection[str]) -> None:
    """Refuse modules the model does not have; of a dotted name the last part counts.

    Raises :class:`TrainerError` (ModelError) listing those it has.
    """
    missing = sorted(name for name in wanted if name.rpartition(".")[2] not in available)
    if missing:
        raise TrainerError(
            FailureClass.MODEL,
            f"adapter.targetModules: the model has no module named {', '.join(missing)}; "
            f"it has {', '.join(sorted(available))}, or use all-linear",
        )
