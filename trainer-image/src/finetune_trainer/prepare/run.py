"""The whole preparation, from a plan to ``train/``, ``eval/`` and ``prepared.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from finetune_api.contract.run_config import RunConfig
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.check import ParsedRow, parse_rows
from finetune_trainer.prepare.packing import pack
from finetune_trainer.prepare.rows import data_error, data_files
from finetune_trainer.prepare.split import evaluation_rows, sample_rows
from finetune_trainer.prepare.table import TableWriter, lengths, open_table, save, write_packed
from finetune_trainer.prepare.tokenizer import load_tokenizer, sequence_length
from finetune_trainer.prepare.tokens import Encoder, Limits
from finetune_trainer.protocol import PreparedSummary, PreparePlan

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARY: Final = "prepared.json"
BATCH: Final = 256
"""Rows per call of the tokenizer."""
SAMPLES: Final = 5
EXCESSIVE_TRUNCATION: Final = 0.1
"""Share of cut rows above which the user is warned."""
Progress = Callable[[int], None]
"""Told the number of rows read so far."""


@dataclass
class Tally:
    """What happened to the rows of one source, kept rows only."""

    lengths: list[int] = field(default_factory=list)
    """Tokens before the cut."""
    cut: list[bool] = field(default_factory=list)
    prompt_cut: list[bool] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    """Position among all rows read."""
    dropped: int = 0
    """Rows in which the cut left nothing to learn."""

    def share_cut(self, rows: NDArray[np.int64]) -> tuple[int, int]:
        """Return how many of these rows were cut, and how many had their prompt cut."""
        return int(np.asarray(self.cut, dtype=bool)[rows].sum()), int(np.asarray(self.prompt_cut, dtype=bool)[rows].sum())


def prepare(plan: PreparePlan, progress: Progress) -> PreparedSummary:
    """Prepare the rows of a plan.

    Raises :class:`TrainerError`: DataError for rows that cannot be used, ConfigurationError and ModelError for lengths and tokenizers.
    """
    spec = RunConfig.model_validate_json(plan.run_config.read_text()).spec
    tokenizer = load_tokenizer(plan.tokenizer_dir)
    limit = sequence_length(spec.training.max_seq_length, tokenizer, plan.tokenizer_dir)
    encoder = Encoder(tokenizer, Limits(limit, spec.dataset.prompt_max_length, spec.dataset.content_max_length))
    scratch = plan.output_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    rows, tally = _encode(_parsed(plan.train_files, spec, spec.dataset.max_samples), encoder, scratch / "rows.arrow", progress)
    evaluation = evaluation_rows(len(rows), spec.dataset.eval_ratio, spec.training.seed)
    train = np.setdiff1d(np.arange(len(rows)), evaluation)
    kept = rows.select(train)
    if spec.dataset.packing:
        write_packed(kept, pack(lengths(kept).tolist(), limit), scratch / "packed.arrow")
        kept = open_table(scratch / "packed.arrow")
    save(kept, plan.output_dir / "train")
    eval_rows = 0
    if plan.eval_files:
        source, _ = _encode(_parsed(plan.eval_files, spec, 0), encoder, scratch / "eval.arrow", progress)
        eval_rows = len(source)
        save(source, plan.output_dir / "eval")
    elif len(evaluation):
        eval_rows = len(evaluation)
        save(rows.select(evaluation), plan.output_dir / "eval")
    summary = _summary(tally, train, limit).model_copy(
        update={"train_rows": len(kept), "eval_rows": eval_rows, "samples": _samples(plan, spec, tally, train)}
    )
    (plan.output_dir / SUMMARY).write_text(summary.to_json())
    shutil.rmtree(scratch)
    return summary


def _parsed(files: Sequence[Path], spec: FineTuneJobSpec, max_samples: int) -> Iterable[ParsedRow]:
    return parse_rows(data_files(files), spec.dataset, max_samples if max_samples > 0 else None)


def _encode(rows: Iterable[ParsedRow], encoder: Encoder, path: Path, progress: Progress) -> tuple[Dataset, Tally]:
    """Encode all rows into a stream file; rows with nothing to learn are left out and counted."""
    tally = Tally()
    read = 0
    source = iter(rows)
    with TableWriter(path) as writer:
        while batch := list(islice(source, BATCH)):
            encoded = encoder.encode([(parsed.row.where, parsed.example) for parsed in batch])
            kept = [(ordinal, row) for ordinal, row in enumerate(encoded, start=read) if row.is_trainable]
            writer.write_rows([row for _, row in kept])
            for ordinal, row in kept:
                tally.ordinals.append(ordinal)
                tally.lengths.append(row.length)
                tally.cut.append(row.is_cut)
                tally.prompt_cut.append(row.prompt_cut)
            tally.dropped += len(batch) - len(kept)
            read += len(batch)
            progress(read)
    if not tally.ordinals:
        if read == 0:
            raise data_error("dataset.uri: no rows to train on")
        fix = "raise training.maxSeqLength or lower dataset.promptMaxLength"
        raise data_error(f"dataset.uri: nothing is left to learn in any of {read} rows after the cut; {fix}")
    return open_table(path), tally


def _summary(tally: Tally, train: NDArray[np.int64], limit: int) -> PreparedSummary:
    sizes = np.asarray(tally.lengths, dtype=np.int64)[train]
    cut, prompts = tally.share_cut(train)
    warnings = {}
    if cut > EXCESSIVE_TRUNCATION * len(train):
        warnings["ExcessiveTruncation"] = (
            f"{cut} of {len(train)} training rows ({cut / len(train):.0%}) are longer than {limit} tokens and were cut; "
            f"half of all rows have {np.percentile(sizes, 50):.0f} tokens, the longest {sizes.max()}: raise training.maxSeqLength"
        )
    if tally.dropped:
        warnings["RowsDropped"] = f"{tally.dropped} rows have nothing left to learn within {limit} tokens and were left out"
    tokens = {
        "p50": float(np.percentile(sizes, 50)),
        "p95": float(np.percentile(sizes, 95)),
        "max": float(sizes.max()),
        "total": float(sizes.sum()),
    }
    return PreparedSummary(train_rows=0, eval_rows=0, truncated_prompts=prompts, truncated_rows=cut, tokens=tokens, warnings=warnings)


def _samples(plan: PreparePlan, spec: FineTuneJobSpec, tally: Tally, train: NDArray[np.int64]) -> list[dict[str, object]]:
    """Read the raw fields of the rows shown to people (V-03)."""
    wanted = {tally.ordinals[row] for row in sample_rows(train, SAMPLES, spec.training.seed)}
    rows = enumerate(_parsed(plan.train_files, spec, max(wanted) + 1))
    # Through JSON, so that dates and bytes of a Parquet file cannot stop the run.
    return [
        cast("dict[str, object]", json.loads(json.dumps(parsed.row.fields, default=str))) for ordinal, parsed in rows if ordinal in wanted
    ]
