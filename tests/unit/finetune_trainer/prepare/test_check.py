"""What preflight finds without a tokenizer, and the tokens it counts with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare import preparation
from finetune_trainer.prepare.check import DataCheck, Part, check_rows
from finetune_trainer.prepare.measure import measure
from finetune_trainer.protocol import MeasuredTokens, MeasurePlan
from tests.unit.finetune_trainer.prepare.conftest import MakePlan, MakeSpec, chats

AUTO = DataSource(uri="configmap://rows/train.jsonl")


def check(path: Path, make_spec: MakeSpec, limit: int = 1000, **dataset: Any) -> DataCheck:
    """Look at one source."""
    return check_rows([Part(AUTO, [path])], make_spec(**dataset), limit)


def test_the_format_and_the_rows_are_found(tmp_path: Path, make_spec: MakeSpec) -> None:
    """D-05: at most the limit is read; then the whole is not known."""
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": str(n), "id": n}) + "\n" for n in range(10)))
    (tmp_path / "b.jsonl").write_text('{"text": "more"}\n')
    whole = check(tmp_path, make_spec)
    assert (whole.facts.format, whole.facts.examples, whole.facts.is_whole, whole.columns) == ("text", 11, True, ["text", "id"])
    assert whole.warnings == {"DatasetSmall": "11 examples; at least 1000 are recommended"}
    some = check(tmp_path, make_spec, limit=4)
    assert (some.facts.examples, some.facts.is_whole, some.warnings) == (4, False, {})
    assert check(tmp_path, make_spec, maxSamples=5).facts.examples == 5


@pytest.mark.parametrize(("rows", "warned"), [(999, True), (1000, False)])
def test_a_small_dataset_is_a_warning(tmp_path: Path, make_spec: MakeSpec, rows: int, warned: bool) -> None:
    """AC-46, D-06: below 1,000 examples."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * rows)
    assert ("DatasetSmall" in check(tmp_path, make_spec, limit=5000).warnings) is warned


def test_a_bad_row_within_the_limit_is_found(tmp_path: Path, make_spec: MakeSpec) -> None:
    """One beyond it is training's to find; with onError skip it is counted."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\nbroken\n')
    assert check(tmp_path / "a.jsonl", make_spec, limit=2).facts.examples == 2
    with pytest.raises(TrainerError, match=r"a\.jsonl, line 3: not valid JSON"):
        check(tmp_path / "a.jsonl", make_spec)
    skipping = check(tmp_path / "a.jsonl", make_spec, onError="skip")
    assert (skipping.facts.examples, skipping.facts.skipped) == (2, 1)
    assert skipping.warnings["RowsSkipped"].startswith("1 malformed rows are left out (dataset.onError: skip); the first: a.jsonl, line 3")


def test_no_rows_at_all(tmp_path: Path, make_spec: MakeSpec) -> None:
    """An empty file is named, and so is one in which no row is any good."""
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TrainerError, match=r"dataset\.uri: empty\.jsonl holds no rows$"):
        check(tmp_path / "empty.jsonl", make_spec)
    (tmp_path / "broken.jsonl").write_text("broken\n")
    with pytest.raises(
        TrainerError, match=r"broken\.jsonl holds no rows that can be used; 1 are malformed, the first: broken\.jsonl, line 1"
    ):
        check(tmp_path / "broken.jsonl", make_spec, onError="skip")


def test_tokens_are_measured(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase) -> None:
    """E-28: percentiles, and the share that training.maxSeqLength cuts, before a GPU is asked for."""
    monkeypatch.setattr(preparation, "load_tokenizer", lambda *_args, **_options: tokenizer)
    plan = make_plan(chats(8) + chats(2, words=200))
    files = MeasurePlan(run_config=plan.run_config, tokenizer_dir=plan.tokenizer_dir, files=plan.train_files, output=plan.output_dir)
    measured = measure(files)
    assert isinstance(measured, MeasuredTokens)
    assert (measured.rows, measured.cut) == (10, 2)
    assert measured.tokens["max"] > 128 > measured.tokens["p50"]
    assert "2 of 10 training rows (20%) are longer than 128 tokens" in measured.warnings["ExcessiveTruncation"]
