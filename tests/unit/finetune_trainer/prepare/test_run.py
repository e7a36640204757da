"""The whole preparation of a plan: split, cut, packed, described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from transformers import PreTrainedTokenizerBase

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare import preparation, run
from finetune_trainer.prepare.tokenizer import sequence_length
from finetune_trainer.protocol import PreparedSummary, PreparePlan
from finetune_trainer.supervisor.prepared import facts_of_rows
from tests.support.manifests import spec_of
from tests.unit.finetune_trainer.prepare.conftest import MakePlan, chats


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase) -> None:
    """Use the tokenizer that was loaded without torch."""
    monkeypatch.setattr(preparation, "load_tokenizer", lambda *_args, **_options: tokenizer)


def prepare(plan: PreparePlan) -> PreparedSummary:
    """Prepare, not listening to progress."""
    return run.prepare(plan, lambda _rows: None)


def asking(length: int, is_long: bool = False) -> FineTuneJobSpec:
    """A job that asks for a length."""
    return resolve(spec_of({"training.maxSeqLength": length, "training.longContext": is_long})).spec


def rows_of(plan: PreparePlan, part: str) -> list[dict[str, Any]]:
    """Rows on disk."""
    return list(load_from_disk(plan.output_dir / part))


@pytest.mark.parametrize(("max_samples", "rows"), [(0, 250), (-1, 250), (100, 100)])
def test_max_samples(make_plan: MakePlan, max_samples: int, rows: int) -> None:
    """AC-09: 0 and -1 mean all of 250, 100 means 100."""
    assert prepare(make_plan(chats(250), maxSamples=max_samples)).train_rows == rows


def test_the_split_and_the_samples(make_plan: MakePlan) -> None:
    """AC-10, V-03: the ratio of rows evaluates; five distinct raw training rows are shown."""
    plan = make_plan(chats(50), evalRatio=0.1)
    summary = prepare(plan)
    assert (summary.train_rows, summary.eval_rows) == (45, 5)
    assert (len(rows_of(plan, "train")), len(rows_of(plan, "eval"))) == (45, 5)
    evaluation = {json.dumps(row["input_ids"]) for row in rows_of(plan, "eval")}
    assert not evaluation & {json.dumps(row["input_ids"]) for row in rows_of(plan, "train")}
    assert len({json.dumps(sample) for sample in summary.samples}) == 5
    assert all(sample in chats(50) for sample in summary.samples)
    assert PreparedSummary.model_validate_json((plan.output_dir / "prepared.json").read_text()) == summary


def test_evaluation_data_of_its_own(make_plan: MakePlan, tmp_path: Any) -> None:
    """E-09: all of it evaluates, none of the training rows does; maxSamples bounds training alone."""
    other = tmp_path / "eval.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in chats(12)))
    plan = make_plan(chats(20), maxSamples=10).model_copy(update={"eval_files": [other]})
    summary = prepare(plan)
    assert (summary.train_rows, summary.eval_rows) == (10, 12)


def test_packed_rows_keep_their_bounds(make_plan: MakePlan) -> None:
    """Several rows in one sequence, each with its length; evaluation rows are not packed (E-24)."""
    plan = make_plan(chats(30), packing=True, evalRatio=0.1)
    summary = prepare(plan)
    rows = rows_of(plan, "train")
    assert summary.train_rows == len(rows) < 27
    assert sum(len(row["seq_lengths"]) for row in rows) == 27
    assert all(sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= 128 for row in rows)
    assert {frozenset(row) for row in rows_of(plan, "eval")} == {frozenset({"input_ids", "labels"})}
    plain = make_plan(chats(30), evalRatio=0.1)
    prepare(plain.model_copy(update={"output_dir": plan.output_dir.with_name("plain")}))
    singles = sorted(map(str, load_from_disk(plan.output_dir.with_name("plain") / "train")["input_ids"][:]))
    assert sorted(str(ids) for row in rows for ids in split(row)) == singles


def split(row: Mapping[str, Any]) -> list[list[int]]:
    """The rows inside a packed sequence."""
    parts, at = [], 0
    for length in row["seq_lengths"]:
        parts.append(row["input_ids"][at : at + length])
        at += length
    return parts


def test_excessive_truncation_is_a_warning(make_plan: MakePlan) -> None:
    """The share that was cut and what would help (E-28); lengths are those before the cut."""
    summary = prepare(make_plan(chats(8) + chats(2, words=200)))
    assert summary.truncated_rows == 2
    assert "2 of 10 training rows (20%) are longer than 128 tokens" in summary.warnings["ExcessiveTruncation"]
    assert "raise training.maxSeqLength" in summary.warnings["ExcessiveTruncation"]
    assert summary.tokens["max"] > 128 > summary.tokens["p50"]


def test_cut_prompts_are_counted_and_told(make_plan: MakePlan) -> None:
    """AC-40, E-12: in status.facts, and as a warning above a tenth of the rows."""
    long = {"messages": [{"role": "user", "content": "word " * 60}, {"role": "assistant", "content": "Yes."}]}
    plan = make_plan([*chats(8), long, long], {"maxSeqLength": 256}, promptMaxLength=64)
    summary = prepare(plan)
    assert (summary.truncated_prompts, summary.truncated_rows) == (2, 0)
    assert "2 of 10 training rows (20%) have a longer prompt" in summary.warnings["PromptsTruncated"]
    assert facts_of_rows(plan.output_dir)["truncatedPrompts"] == "2"


@pytest.mark.parametrize("field", [{"systemPrompt": "Be brief."}, {"promptTemplate": "{prompt}"}, {"assistantOnlyLoss": True}])
def test_texts_that_auto_finds_have_no_prompt(make_plan: MakePlan, field: dict[str, Any]) -> None:
    """E-10, E-11: as with format text, what would be without effect is refused; a skipped row would hide it."""
    (name,) = field
    with pytest.raises(TrainerError, match=rf"train\.jsonl, line 1: .* text has no prompt: leave out dataset\.{name}") as raised:
        prepare(make_plan([{"text": "one two"}], onError="skip", **field))
    assert raised.value.failure_class is FailureClass.CONFIGURATION


def test_texts_beside_conversations_may_stay_texts(make_plan: MakePlan, tmp_path: Path) -> None:
    """D-17, E-11: where an additional source says so itself."""
    (tmp_path / "more.jsonl").write_text('{"text": "one two"}\n')
    more = {"uri": "configmap://rows/more.jsonl", "format": "text"}
    plan = make_plan(chats(2), systemPrompt="Be brief.", additional=[more])
    assert prepare(plan.model_copy(update={"train_files": [*plan.train_files, [tmp_path / "more.jsonl"]]})).train_rows == 3


def test_rows_without_anything_to_learn_are_left_out(make_plan: MakePlan) -> None:
    """Counted and said; without any other row the run is refused."""
    hopeless = {"prompt": "word " * 400, "completion": "answer"}
    summary = prepare(make_plan([hopeless, {"prompt": "short", "completion": "answer"}]))
    assert summary.train_rows == 1
    assert "1 rows have nothing left to learn within 128 tokens" in summary.warnings["RowsDropped"]
    with pytest.raises(TrainerError, match=r"raise training\.maxSeqLength or lower dataset\.promptMaxLength") as raised:
        prepare(make_plan([hopeless]))
    assert raised.value.failure_class is FailureClass.DATA


def test_the_model_s_context(make_plan: MakePlan) -> None:
    """``maxSeqLength: 0`` takes the model's context, 1024 tokens here (X09)."""
    plan = make_plan(chats(2, words=3000), {"maxSeqLength": 0})
    prepare(plan)
    assert {len(row["input_ids"]) for row in rows_of(plan, "train")} == {1024}


def test_an_unknown_context_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer of its own has no config.json: its own limit stands, and without one the field must be set."""
    assert sequence_length(asking(0), tokenizer, tmp_path) == 1024
    monkeypatch.setattr(tokenizer, "model_max_length", 10**30)
    with pytest.raises(TrainerError, match=r"training\.maxSeqLength: 0 means the model's context"):
        sequence_length(asking(0), tokenizer, tmp_path)


def test_a_long_sequence_is_no_longer_than_the_model_s_context(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """X09, F-07: 0 and with longContext up to the model's context, without it up to 8192; below 8193 the number is the user's."""
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 16384}}')
    lengths = [sequence_length(asking(*asked), tokenizer, tmp_path) for asked in ((0,), (0, True), (512,), (16384, True))]
    assert lengths == [8192, 16384, 512, 16384]
    with pytest.raises(
        TrainerError, match=r"training\.maxSeqLength: 16392 is above the model's context of 16384 tokens; lower it"
    ) as raised:
        sequence_length(asking(16392, True), tokenizer, tmp_path)
    assert raised.value.failure_class is FailureClass.CONFIGURATION
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 256}')
    assert sequence_length(asking(512), tokenizer, tmp_path) == 512


@pytest.mark.parametrize(("limit", "warns"), [(1024, False), (1032, True), (0, False)])
def test_a_length_above_the_model_s_context_is_said(make_plan: MakePlan, limit: int, warns: bool) -> None:
    """F-07, X09: up to 8192 it is the user's choice; the tiny model was made for 1024 tokens."""
    warnings = prepare(make_plan(chats(4), {"maxSeqLength": limit})).warnings
    assert ("SequenceAboveContext" in warnings) is warns
    assert not warns or "above the model's context of 1024 tokens" in warnings["SequenceAboveContext"]


def test_malformed_rows_are_left_out_and_counted(make_plan: MakePlan) -> None:
    """E-01: what cannot be read, what does not fit its format, and what the chat template refuses."""
    rows = [*chats(6), {"messages": [{"role": "robot", "content": "x"}]}, {"prompt": "no messages"}]
    summary = prepare(make_plan(rows, onError="skip"))
    assert (summary.train_rows, summary.skipped_rows) == (6, 2)
    assert summary.warnings["RowsSkipped"].startswith(
        "2 malformed rows are left out (dataset.onError: skip); the first: train.jsonl, line 7"
    )
    with pytest.raises(TrainerError, match=r"line 7: messages\[0\]\.role must be one of"):
        prepare(make_plan(rows))
    with pytest.raises(TrainerError, match=r"no rows to train on; 1 were malformed, the first: train\.jsonl, line 1"):
        prepare(make_plan(rows[-1:], onError="skip", format="messages"))


def test_several_sources_are_merged(make_plan: MakePlan, tmp_path: Path) -> None:
    """D-17: each with its own format and weight; errors name the source; evaluation rows are drawn before rows are repeated."""
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"instruction": f"{n}?", "output": "word"}) + "\n" for n in range(10)))
    plan = make_plan(chats(10), additional=[{"uri": "configmap://rows/more.jsonl", "weight": 3}], evalRatio=0.2)
    plan = plan.model_copy(update={"train_files": [*plan.train_files, [more]]})
    summary = prepare(plan)
    train, evaluation = rows_of(plan, "train"), rows_of(plan, "eval")
    assert summary.eval_rows == len(evaluation) == 4
    own = len(summary.samples) and sum(1 for row in evaluation if row["labels"] == row["input_ids"])
    assert summary.train_rows == len(train) == (10 - own) + 3 * (10 - (4 - own))
    assert not {str(row["input_ids"]) for row in train} & {str(row["input_ids"]) for row in evaluation}
    more.write_text("broken")
    with pytest.raises(TrainerError, match=r"additional\[0\] more\.jsonl, line 1: not valid JSON"):
        prepare(plan)
