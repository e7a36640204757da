"""How long rows are in tokens, measured on the first ones of each source; for preflight, in a process of its own."""

from __future__ import annotations

from itertools import islice
from typing import Final

from finetune_api.contract.run_config import RunConfig
from finetune_trainer.prepare.images import open_images
from finetune_trainer.prepare.notices import above_context, excessive_truncation
from finetune_trainer.prepare.preparation import open_preparation
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_files
from finetune_trainer.prepare.summary import Tally, token_facts
from finetune_trainer.protocol import MeasuredTokens, MeasurePlan

ROWS: Final = 2000
"""Rows of each source: a second's work."""
SIGHT_ROWS: Final = 64
"""The same where rows may have images."""


def measure(plan: MeasurePlan) -> MeasuredTokens:
    """Tokenise the first rows of each source as training would.

    Raises :class:`TrainerError`: DataError for rows the chat template refuses, ConfigurationError and ModelError as preparing does.
    """
    config = RunConfig.model_validate_json(plan.run_config.read_text())
    spec, count = config.spec, SIGHT_ROWS if plan.has_vision else ROWS
    preparation = open_preparation(spec, plan.tokenizer_dir, open_images(config) if plan.has_vision else None)
    rejects, tally = Rejects(skip=spec.dataset.on_error == "skip"), Tally()
    for number, (part, paths) in enumerate(zip(spec.dataset.parts, plan.files, strict=True)):
        rows = preparation.reader(part, rejects).read(data_files(paths), min(count, part.max_samples or count))
        while batch := list(islice(rows, preparation.batch)):
            tally.add(number, 0, preparation.encoder.encode([preparation.example(row) for row in batch], rejects))
    if not tally.lengths:
        return MeasuredTokens(rows=0)
    tokens, cut = token_facts(tally.sizes), sum(tally.cut)
    warnings = excessive_truncation(cut, len(tally.cut), limit=preparation.limit, median=tokens["p50"], longest=tokens["max"])
    warnings |= above_context(preparation.limit, preparation.context)
    return MeasuredTokens(rows=len(tally.lengths), tokens=tokens, cut=cut, warnings=warnings)
