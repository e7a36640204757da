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
from finetune_trainer.prepare.rows import Row, data_error, data_files
from finetune_trainer.prepare.wrapping import Wrapping

MAX_ROWS = 100_000
FIRST_ROWS = 3


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
    first: list[Row]
    """The first rows as they were found."""
    warnings: dict[str, str]
    """Condition -> message."""


class Manner(NamedTuple):
    """How rows are read."""

    method: str
    wrapping: Wrapping
    skips: bool
    """Malformed rows are counted, not refused."""
    max_samples: int = 0
    """Rows that are used; 0: all."""

    @classmethod
    def of(cls, spec: FineTuneJobSpec) -> Manner:
        """As a job asks for it."""
        # Whether the tokenizer has a chat template is not known here; with one, every row that fits one form fits the other.
        wrapping = Wrapping.of(spec.dataset, has_chat_template=True)
        return cls(spec.builtin_method, wrapping, spec.dataset.on_error == "skip", spec.dataset.max_samples)


def check_rows(parts: Sequence[Part], spec: FineTuneJobSpec, limit: int = MAX_ROWS, images: Images | None = None) -> DataCheck:
    """The rows of a job: see :func:`look_at_rows`."""
    return look_at_rows(parts, Manner.of(spec), limit, images)


def look_at_rows(parts: Sequence[Part], manner: Manner, limit: int = MAX_ROWS, images: Images | None = None) -> DataCheck:
    """Read at most ``limit`` rows of each source; ``images`` looks at those of rows, None where the model cannot see any.

    Raises :class:`TrainerError` (DataError) naming file, line, field and what was expected; also when a source has no row at all.
    """
    rejects = Rejects(skip=manner.skips)
    formats: list[str] = []
    first: list[Row] = []
    examples, is_whole = 0, True
    for part in parts:
        reader = Reader(part.source, manner.method, manner.wrapping, rejects, images)
        count = 0
        for row in reader.read(data_files(part.files), min(limit, part.source.max_samples or limit)):
            if len(first) < FIRST_ROWS:
                first.append(row.raw)
            count += 1
        if reader.layout is None or count == 0:
            raise data_error(_no_rows(part, rejects))
        formats.append(reader.layout.format)
        examples += count
        is_whole = is_whole and part.is_whole and count < limit
    if 0 < manner.max_samples < examples:
        examples = manner.max_samples
    facts = DatasetFacts(format=", ".join(dict.fromkeys(formats)), examples=examples, is_whole=is_whole, skipped=rejects.count)
    columns = [str(name) for name in first[0].fields]
    return DataCheck(facts, columns, first, {**(small_dataset(examples) if is_whole else {}), **rows_skipped(rejects)})


def _no_rows(part: Part, rejects: Rejects) -> str:
    names = ", ".join(path.name for path in part.files) or "no file"
    if not rejects.count:
        return f"dataset.uri: {names} holds no rows"
    return f"dataset.uri: {names} holds no rows that can be used; {rejects.count} are malformed, the first: {rejects.first}"
