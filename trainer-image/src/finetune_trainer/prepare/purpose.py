"""What a method makes of rows; it decides how they are encoded and which columns prepared rows have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from finetune_api.models.spec import FineTuneJobSpec

Purpose: TypeAlias = Literal["tokens", "text", "preference", "verdict", "task"]
"""``text`` is sequences of tokens of which nothing is cut off."""
PURPOSES: Final[Mapping[str, Purpose]] = {
    "sft": "tokens",
    "pretrain": "text",
    "dpo": "preference",
    "reward": "preference",
    "kto": "verdict",
    "grpo": "task",
}


def purpose_of(spec: FineTuneJobSpec) -> Purpose:
    """What the job's method makes of rows."""
    return PURPOSES[spec.builtin_method]
