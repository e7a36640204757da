"""Prompts for the final model to answer, taken from rows that are ready for training: whatever their format was, they are tokens here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from finetune_api.contract.store import SamplePrompt
from finetune_trainer.prepare.merging import sample_rows
from finetune_trainer.prepare.tokens import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

KEPT: Final = 20
"""Prompts of each split; an export answers as many of them as it is asked to."""
SHARE: Final = 0.5
"""Of a row in which every token is trained: how much of it is the prompt."""


def prompts_of(rows: Dataset, split: Literal["train", "eval"], tokenizer: PreTrainedTokenizerBase, seed: int) -> list[SamplePrompt]:
    """Prompt and expected answer of some rows, chosen by seed: what comes before the first trained token, else the first half."""
    chosen = sorted(int(row) for row in sample_rows(np.arange(len(rows)), KEPT, seed))
    prompts = []
    for index in chosen:
        row = rows[index]
        ids, labels = list(row["input_ids"]), list(row["labels"])
        start = next((place for place, label in enumerate(labels) if label != IGNORED), len(ids))
        start = start if start > 0 else max(1, int(len(ids) * SHARE))
        prompts.append(
            SamplePrompt(
                split=split,
                prompt=str(tokenizer.decode(ids[:start])),
                expected=str(tokenizer.decode(ids[start:], skip_special_tokens=True)),
            )
        )
    return prompts
