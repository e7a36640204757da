"""The whole preparation, from a plan to ``train/``, ``eval/`` and ``prepared.json``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import SamplePrompt
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.encoded import Ready
from finetune_trainer.prepare.images import ImageCheck, open_images
from finetune_trainer.prepare.later import LATER_SCHEMA, Later, LaterRows
from finetune_trainer.prepare.merging import Rows, evaluation_rows, limited_rows, sample_rows, training_rows, weighted_rows
from finetune_trainer.prepare.notices import above_context, no_images
from finetune_trainer.prepare.packing import pack
from finetune_trainer.prepare.preparation import Preparation, open_preparation
from finetune_trainer.prepare.prompts import prompts_of
from finetune_trainer.prepare.reading import ReadRow
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import DataFile, data_error, data_files
from finetune_trainer.prepare.summary import Tally, summarise
from finetune_trainer.prepare.table import TableWriter, lengths, open_table, save, write_packed
from finetune_trainer.protocol import PreparedSummary, PreparePlan

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARY: Final = "prepared.json"
SAMPLES: Final = 5
Progress = Callable[[int], None]
"""Told the number of rows read so far."""


def prepare(plan: PreparePlan, progress: Progress) -> PreparedSummary:
    """Prepare the rows of a plan.

    Raises :class:`TrainerError`: DataError for rows that cannot be used, ConfigurationError and ModelError for lengths and tokenizers.
    """
    config = RunConfig.model_validate_json(plan.run_config.read_text())
    spec, scratch = config.spec, plan.output_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    images = open_images(config, scratch / "images.arrow") if plan.has_vision else None
    preparation = open_preparation(spec, plan.tokenizer_dir, images)
    rejects = Rejects(skip=spec.dataset.on_error == "skip")
    rows, tally = _encode(_sources(plan, preparation, rejects), preparation, rejects, scratch / "rows.arrow", progress)
    own, evaluation = _split(spec, tally)
    kept = rows.select(
        weighted_rows(own, np.asarray(tally.sources), [part.weight or 1.0 for part in spec.dataset.parts], spec.training.seed)
    )
    prompts = _prompts(kept, "train", preparation)
    if spec.dataset.packing:
        write_packed(kept, pack(lengths(kept).tolist(), preparation.limit), scratch / "packed.arrow")
        kept = open_table(scratch / "packed.arrow")
    save(kept, plan.output_dir / "train")
    eval_rows = len(evaluation)
    if plan.eval_files:
        reader = preparation.reader(spec.dataset.parts[0], rejects)
        source, _ = _encode([reader.read(data_files(plan.eval_files))], preparation, rejects, scratch / "eval.arrow", progress)
        eval_rows = len(source)
        prompts += _prompts(source, "eval", preparation)
        save(source, plan.output_dir / "eval")
    elif len(evaluation):
        prompts += _prompts(rows.select(evaluation), "eval", preparation)
        save(rows.select(evaluation), plan.output_dir / "eval")
    if images is not None:
        images.save(plan.output_dir / "images")
    summary = summarise(tally, own, preparation.limit, rejects, is_excerpt=spec.dataset.streaming)
    summary = summary.model_copy(
        update={
            "train_rows": len(kept),
            "eval_rows": eval_rows,
            "samples": _samples(plan, preparation, tally, own),
            "prompts": prompts,
            "images": len(images) if images is not None else 0,
            "warnings": summary.warnings
            | above_context(preparation.limit, preparation.context)
            | (no_images(spec, len(images)) if images is not None else {}),
        }
    )
    (plan.output_dir / SUMMARY).write_text(summary.to_json())
    shutil.rmtree(scratch)
    return summary


def _prompts(rows: Dataset, split: Literal["train", "eval"], preparation: Preparation) -> list[SamplePrompt]:
    """Prompts of some rows, whether they are tokens already or not."""
    spec = preparation.spec
    tokens = LaterRows(rows, preparation) if spec.dataset.lazy_tokenize else rows
    return prompts_of(tokens, split, preparation.tokenizer, spec.training.seed)


def _split(spec: FineTuneJobSpec, tally: Tally) -> tuple[Rows, Rows]:
    """Rows that train and rows that evaluate. Of several sources the limit takes a share of each; of one its first rows were read."""
    dataset, seed = spec.dataset, spec.training.seed
    taken = limited_rows(len(tally.lengths), dataset.max_samples if dataset.additional else 0, seed)
    evaluation = taken[evaluation_rows(len(taken), dataset.eval_ratio, seed)]
    return training_rows(np.setdiff1d(taken, evaluation), dataset.train_ratio, len(taken), seed), evaluation


def _sources(plan: PreparePlan, preparation: Preparation, rejects: Rejects) -> list[Iterable[ReadRow]]:
    """The rows of each source."""
    dataset = preparation.spec.dataset
    found: list[Iterable[ReadRow]] = []
    for index, (part, paths) in enumerate(zip(dataset.parts, plan.train_files, strict=True)):
        limit = part.max_samples if index or dataset.additional else max(dataset.max_samples, 0)
        found.append(preparation.reader(part, rejects).read(_files(index, paths), limit or None))
    return found


def _files(index: int, paths: Sequence[Path]) -> list[DataFile]:
    """Data files of a source; those of additional ones are told apart by its number."""
    files = data_files(paths)
    return [DataFile(file.path, f"additional[{index - 1}] {file.name}") for file in files] if index else files


def _encode(
    sources: Sequence[Iterable[ReadRow]], preparation: Preparation, rejects: Rejects, path: Path, progress: Progress
) -> tuple[Dataset, Tally]:
    """Encode the rows of all sources into a stream file; rows with nothing to learn are left out and counted."""
    tally = Tally()
    is_later = preparation.spec.dataset.lazy_tokenize
    with TableWriter(path, LATER_SCHEMA if is_later else preparation.schema) as writer:
        for number, source in enumerate(sources):
            rows, ordinal = iter(source), 0
            while batch := list(islice(rows, preparation.batch)):
                encoded: Sequence[Sequence[Ready]] = (
                    [[Later.of(row)] for row in batch]
                    if is_later
                    else preparation.encoder.encode([preparation.example(row) for row in batch], rejects)
                )
                writer.write_rows(tally.add(number, ordinal, encoded))
                ordinal += len(batch)
                progress(tally.read)
    if not tally.lengths:
        if tally.read == 0:
            seen = f"; {rejects.count} were malformed, the first: {rejects.first}" if rejects.count else ""
            raise data_error(f"dataset.uri: no rows to train on{seen}")
        fix = "raise training.maxSeqLength or lower dataset.promptMaxLength"
        if preparation.images is not None:
            fix += ", or set dataset.imageMaxPixels: images take most of the tokens and are not cut"
        raise data_error(f"dataset.uri: nothing is left to learn in any of {tally.read} rows after the cut; {fix}")
    return open_table(path), tally


def _samples(plan: PreparePlan, preparation: Preparation, tally: Tally, train: Rows) -> list[dict[str, object]]:
    """Read the raw fields of the rows shown to people (V-03)."""
    chosen = [(tally.sources[row], tally.ordinals[row]) for row in sample_rows(train, SAMPLES, preparation.spec.training.seed)]
    found: list[dict[str, object]] = []
    # A second reading: its malformed rows were counted by the first.
    skipping, looking = Rejects(skip=True), replace(preparation, images=None if preparation.images is None else ImageCheck(offline=False))
    for number, source in enumerate(_sources(plan, looking, skipping)):
        wanted = {ordinal for part, ordinal in chosen if part == number}
        rows = islice(source, max(wanted) + 1) if wanted else ()
        # Through JSON, so that dates and bytes of a Parquet file cannot stop the run.
        found += [json.loads(json.dumps(row.raw.fields, default=_shown)) for ordinal, row in enumerate(rows) if ordinal in wanted]
    return found


def _shown(value: object) -> str:
    """What stands for a value that JSON has no form for."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
