"""What preflight finds without a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.check import check_rows
from tests.unit.finetune_trainer.prepare.conftest import MakeSpec


def test_the_format_and_the_rows_are_found(tmp_path: Path, make_spec: MakeSpec) -> None:
    """At most the limit is read."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": str(n), "id": n}) + "\n" for n in range(10)))
    (tmp_path / "b.jsonl").write_text('{"text": "more"}\n')
    assert check_rows([tmp_path], make_spec()) == ("text", ["text", "id"], 11)
    assert check_rows([tmp_path], make_spec(), limit=4).rows == 4


def test_a_bad_row_within_the_limit_is_found(tmp_path: Path, make_spec: MakeSpec) -> None:
    """One beyond it is training's to find."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\nbroken\n')
    assert check_rows([tmp_path / "a.jsonl"], make_spec(), limit=2).rows == 2
    with pytest.raises(TrainerError, match=r"a\.jsonl, line 3: not valid JSON"):
        check_rows([tmp_path / "a.jsonl"], make_spec())


def test_no_rows_at_all(tmp_path: Path, make_spec: MakeSpec) -> None:
    """An empty file is named."""
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TrainerError, match=r"dataset\.uri: empty\.jsonl holds no rows"):
        check_rows([tmp_path / "empty.jsonl"], make_spec())
