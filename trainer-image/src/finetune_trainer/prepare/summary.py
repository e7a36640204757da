"""What preparing found: lengths, cuts, and what people should be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finetune_trainer.prepare.encoded import Ready
from finetune_trainer.prepare.merging import Rows
from finetune_trainer.prepare.notices import excessive_truncation, rows_skipped, small_dataset, truncated_prompts
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.protocol import PreparedSummary


@dataclass
class Tally:
    """What happened to the rows; the lists speak of kept rows only."""

    lengths: list[int] = field(default_factory=list)
    """Tokens before the cut."""
    cut: list[bool] = field(default_factory=list)
    prompt_cut: list[bool] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    """Position among the usable rows of the source."""
    dropped: int = 0
    """Rows in which the cut left nothing to learn."""
    read: int = 0
    """Rows that were encoded."""

    @property
    def sizes(self) -> Rows:
        """Tokens before the cut."""
        return np.asarray(self.lengths, dtype=np.int64)

    def add(self, source: int, first: int, encoded: Sequence[Sequence[Ready]]) -> list[Ready]:
        """Count what examples became, the first of which has the ordinal ``first``; returns the rows that teach something."""
        kept = []
        for ordinal, row in ((at, row) for at, rows in enumerate(encoded, start=first) for row in rows):
            self.read += 1
            if not row.is_trainable:
                self.dropped += 1
                continue
            kept.append(row)
            self.sources.append(source)
            self.ordinals.append(ordinal)
            self.lengths.append(row.length)
            self.cut.append(row.is_cut)
            self.prompt_cut.append(row.prompt_cut)
        return kept


def summarise(tally: Tally, train: Rows, limit: int, rejects: Rejects, *, is_excerpt: bool = False) -> PreparedSummary:
    """Describe the rows at ``train``; the numbers of rows are still to be filled in. An excerpt says nothing of how many there are."""
    sizes = tally.sizes[train]
    cut, prompts = int(np.asarray(tally.cut, dtype=bool)[train].sum()), int(np.asarray(tally.prompt_cut, dtype=bool)[train].sum())
    # Rows that are tokenised later have no lengths yet.
    tokens = token_facts(sizes) if sizes.any() else {}
    warnings = excessive_truncation(cut, len(train), limit=limit, median=tokens["p50"], longest=tokens["max"]) if tokens else {}
    if tally.dropped:
        warnings["RowsDropped"] = (
            f"{tally.dropped} rows have nothing left to learn within {limit} tokens, or an image that does not fit in, and were left out"
        )
    warnings |= truncated_prompts(prompts, len(train)) | rows_skipped(rejects) | ({} if is_excerpt else small_dataset(len(tally.lengths)))
    return PreparedSummary(
        train_rows=0,
        eval_rows=0,
        is_excerpt=is_excerpt,
        truncated_prompts=prompts,
        truncated_rows=cut,
        skipped_rows=rejects.count,
        tokens=tokens,
        warnings=warnings,
    )


def token_facts(sizes: Rows) -> dict[str, float]:
    """Percentiles and sum of row lengths in tokens."""
    return {
        "p50": float(np.percentile(sizes, 50)),
        "p95": float(np.percentile(sizes, 95)),
        "max": float(sizes.max()),
        "total": float(sizes.sum()),
    }
