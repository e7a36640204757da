"""Prompts for the final model to answer, taken from rows that are ready for training: whatever their format was, they are tokens here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from finetune_api.contract.store import SamplePrompt
from finetune_trainer.prepare.encoded import IGNORED
from finetune_trainer.prepare.later import LaterRows
from finetune_trainer.prepare.merging import sample_rows
from finetune_trainer.prepare.table import rows_without_images

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

KEPT: Final = 20
"""Prompts of each split; an export answers as many of them as it is asked to."""
SHARE: Final = 0.5
"""Of a row in which every token is trained: how much of it is the prompt."""


def prompts_of(
    rows: Dataset | LaterRows, split: Literal["train", "eval"], tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[SamplePrompt]:
    """Prompt and expected answer of some prepared rows, chosen by seed; rows with images cannot be asked again as texts."""
    candidates = np.arange(len(rows)) if isinstance(rows, LaterRows) else rows_without_images(rows)
    chosen = sorted(int(candidates[row]) for row in sample_rows(np.arange(len(candidates)), KEPT, seed))
    asked = [_asked(rows[index], tokenizer) for index in chosen]
    return [SamplePrompt(split=split, prompt=prompt, expected=expected) for prompt, expected in asked]


def _asked(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Prompt and the answer that is wanted; the latter is empty where the row has none."""
    match row:
        case {"input_ids": ids, "labels": labels}:
            start = next((place for place, label in enumerate(labels) if label != IGNORED), len(ids))
            start = start if start > 0 else max(1, int(len(ids) * SHARE))
            prompt, answer = ids[:start], ids[start:]
        case {"prompt_ids": prompt, "chosen_ids": answer}:
            pass
        case {"prompt_ids": prompt, "completion_ids": completion, "label": is_good}:
            answer = completion if is_good else []
        case _:
            return _task(json.loads(row["row"]), tokenizer), ""
    return str(tokenizer.decode(prompt)), str(tokenizer.decode(answer, skip_special_tokens=True))


def _task(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return prompt
    return str(tokenizer.apply_chat_template(prompt, tools=row.get("tools"), tokenize=False, add_generation_prompt=True))
