"""Sentences about a dataset that preflight and training say alike."""

from __future__ import annotations

from typing import Final

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.rejects import Rejects

EXCESSIVE_TRUNCATION: Final = 0.1
"""Share of cut rows above which the user is warned (E-28)."""
RECOMMENDED_ROWS: Final = 1000
"""Rows below which a dataset is called small (D-06)."""


def small_dataset(examples: int) -> dict[str, str]:
    """The warning for few examples."""
    if examples >= RECOMMENDED_ROWS:
        return {}
    return {"DatasetSmall": f"{examples} examples; at least {RECOMMENDED_ROWS} are recommended"}


def no_images(spec: FineTuneJobSpec, images: int) -> dict[str, str]:
    """The warning for a vision part that has nothing to learn from."""
    if images or spec.model.type == "LLM":
        return {}
    return {"NoImages": "no row has an image, so that the vision part of the model learns nothing; write model.type: LLM"}


def rows_skipped(rejects: Rejects) -> dict[str, str]:
    """The warning for malformed rows."""
    if not rejects.count:
        return {}
    return {"RowsSkipped": f"{rejects.count} malformed rows are left out (dataset.onError: skip); the first: {rejects.first}"}


def above_context(limit: int, context: int | None) -> dict[str, str]:
    """The warning for sequences that may be longer than the model was made for (F-07, X09)."""
    if context is None or limit <= context:
        return {}
    return {
        "SequenceAboveContext": f"training.maxSeqLength {limit} is above the model's context of {context} tokens: longer rows train "
        "positions that the model does not know, and some models fail on them; lower it, or write 0 for the whole context"
    }


def truncated_prompts(cut: int, rows: int) -> dict[str, str]:
    """The warning for prompts that lost their beginning (E-12)."""
    if cut <= EXCESSIVE_TRUNCATION * rows:
        return {}
    return {
        "PromptsTruncated": f"{cut} of {rows} training rows ({cut / rows:.0%}) have a longer prompt than the limits allow, and lose its "
        "beginning: raise dataset.promptMaxLength, and training.maxSeqLength with it"
    }


def excessive_truncation(cut: int, rows: int, *, limit: int, median: float, longest: float) -> dict[str, str]:
    """The warning for rows that are longer than a sequence."""
    if cut <= EXCESSIVE_TRUNCATION * rows:
        return {}
    return {
        "ExcessiveTruncation": f"{cut} of {rows} training rows ({cut / rows:.0%}) are longer than {limit} tokens and are cut; half of all "
        f"rows have {median:.0f} tokens, the longest {longest:.0f}: raise training.maxSeqLength"
    }
