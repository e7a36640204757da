"""Rows whose tokens are made when they are asked for (``dataset.lazyTokenize``, ``dataset.streaming``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa  # type: ignore[import-untyped]

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.encoded import IGNORED
from finetune_trainer.prepare.preparation import Preparation
from finetune_trainer.prepare.reading import Reader, ReadRow
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import Row, data_error
from finetune_trainer.prepare.stream import RawRow, RowStream

if TYPE_CHECKING:
    from datasets import Dataset

LATER_SCHEMA: Final = pa.schema([("where", pa.string()), ("canonical", pa.string())])
"""Columns of rows that are read and checked, and not tokenised yet."""
NOTHING: Final[Mapping[str, Any]] = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}
"""Stands for a row that cannot be used where such rows are left out: its place is known, so another cannot move up."""
FIRST_ROWS: Final = 100
"""Rows among which one must be usable, to show how all are read."""


@dataclass(frozen=True)
class Later:
    """A canonical row as it is stored."""

    where: str
    canonical: str
    """JSON object."""
    length: int = 0
    prompt_cut: bool = False
    is_cut: bool = False
    is_trainable: bool = True

    @classmethod
    def of(cls, row: ReadRow) -> Later:
        """Store a row; values that JSON does not know become texts."""
        return cls(row.canonical.where, json.dumps(dict(row.canonical.fields), ensure_ascii=False, default=str))

    def columns(self) -> Mapping[str, object]:
        """The row and its place."""
        return {"where": self.where, "canonical": self.canonical}


class LaterRows:
    """Tokenises rows of a table of :class:`Later` by index."""

    def __init__(self, table: Dataset, preparation: Preparation) -> None:
        self._table, self._preparation = table, preparation

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.encode([index])[0]

    def encode(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return tokens and labels of rows.

        Raises :class:`TrainerError` (DataError) for one that the chat template refuses, unless such rows are left out.
        """
        columns: dict[str, list[str]] = self._table[list(indices)]
        rows = [Row(where, json.loads(text)) for where, text in zip(columns["where"], columns["canonical"], strict=True)]
        return _encode(self._preparation, rows)


class StreamedRows:
    """Reads and tokenises rows of a stream by position."""

    def __init__(self, stream: RowStream, preparation: Preparation) -> None:
        self._stream, self._preparation = stream, preparation
        self._reader: Reader | None = None

    def encode(self, positions: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return tokens and labels of rows.

        Raises :class:`TrainerError` (DataError) for one that cannot be used, unless such rows are left out.
        """
        reader = self._reader = self._reader or self._open()
        rows = [self._canonical(reader, raw) for raw in self._stream.rows(positions)]
        found = iter(_encode(self._preparation, [row for row in rows if row is not None]))
        return [NOTHING if row is None else next(found) for row in rows]

    def _open(self) -> Reader:
        """A reader that knows how rows are read: by the first usable one of the whole stream, wherever training begins."""
        reader = self._preparation.reader(self._preparation.spec.dataset.parts[0], Rejects(skip=False))
        problem: TrainerError | None = None
        for _, raw in zip(range(FIRST_ROWS), self._stream.first(), strict=False):
            try:
                if isinstance(raw, TrainerError):
                    raise raw
                reader.canonical(raw)
            except TrainerError as error:
                problem = problem or error
                if self._skips:
                    continue
                raise
            return reader
        raise problem or data_error("dataset.uri: no rows to train on")

    def _canonical(self, reader: Reader, raw: RawRow) -> Row | None:
        try:
            if isinstance(raw, TrainerError):
                raise raw
            return reader.canonical(raw)
        except TrainerError:
            if not self._skips:
                raise
            return None

    @property
    def _skips(self) -> bool:
        return self._preparation.spec.dataset.on_error == "skip"


def _encode(preparation: Preparation, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Tokens and labels, one row each; :data:`NOTHING` for one the chat template refuses where such rows are left out."""
    rejects = Rejects(skip=preparation.spec.dataset.on_error == "skip")
    encoded = preparation.encoder.encode([preparation.example(ReadRow(row, row)) for row in rows], rejects)
    return [found[0].columns() if found else NOTHING for found in encoded]
