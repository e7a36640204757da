"""A look at the data before training, for preflight: rows are read as training would, without a tokenizer, and nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune_api.contract.preflight import DatasetFacts
from finetune_api.models.sources import DataSource
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.images import Images
from finetune_trainer.prepare.notices import rows_skipped, small_dataset
from finetune_trainer.prepare.reading import Reader
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_error, data_files
from finetune_trainer.prepare.wrapping import Wrapping

MAX_ROWS = 100_000


class Part(NamedTuple):
    """Files of one source."""

    source: DataSource
    files: Sequence[Path]
    is_whole: bool = True
    """The files are all there is, not an excerpt."""


class DataCheck(NamedTuple):
    """What the rows look like."""

    facts: DatasetFacts
    columns: list[str]
    """Of the first row."""
    warnings: dict[str, str]
    """Condition -> message."""


def check_rows(parts: Sequence[Part], spec: FineTuneJobSpec, limit: int = MAX_ROWS, images: Images | None = None) -> DataCheck:
    """Read at most ``limit`` rows of each source; ``images`` looks at those of rows, None where the model cannot see any.

    Raises :class:`TrainerError` (DataError) naming file, line, field and what was expected; also when a source has no row at all.
    """
    rejects = Rejects(skip=spec.dataset.on_error == "skip")
    # Whether the tokenizer has a chat template is not known here; with one, every row that fits one form fits the other.
    wrapping = Wrapping.of(spec.dataset, has_chat_template=True)
    formats: list[str] = []
    columns: list[str] = []
    examples, is_whole = 0, True
    for part in parts:
        reader = Reader(part.source, spec.builtin_method, wrapping, rejects, images)
        count = 0
        for row in reader.read(data_files(part.files), min(limit, part.source.max_samples or limit)):
            columns = columns or [str(name) for name in row.raw.fields]
            count += 1
        if reader.layout is None or count == 0:
            raise data_error(_no_rows(part, rejects))
        formats.append(reader.layout.format)
        examples += count
        is_whole = is_whole and part.is_whole and count < limit
    if 0 < spec.dataset.max_samples < examples:
        examples = spec.dataset.max_samples
    facts = DatasetFacts(format=", ".join(dict.fromkeys(formats)), examples=examples, is_whole=is_whole, skipped=rejects.count)
    return DataCheck(facts, columns, {**(small_dataset(examples) if is_whole else {}), **rows_skipped(rejects)})


def _no_rows(part: Part, rejects: Rejects) -> str:
    names = ", ".join(path.name for path in part.files) or "no file"
    if not rejects.count:
        return f"dataset.uri: {names} holds no rows"
    return f"dataset.uri: {names} holds no rows that can be used; {rejects.count} are malformed, the first: {rejects.first}"
