"""What each method makes of rows: which tokens are prompt and which answer, what is cut, what reward functions get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerBase

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.encoded import Encoded, EncodedAnswers, EncodedTask, Ready
from finetune_trainer.prepare.examples import Chat, Example, Preference, Task, Text, Verdict, read_example
from finetune_trainer.prepare.preparation import open_preparation
from finetune_trainer.prepare.reading import Reader
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import Row
from finetune_trainer.prepare.run import prepare
from finetune_trainer.prepare.tokens import Encoder, Limits
from finetune_trainer.prepare.wrapping import Wrapping

from .conftest import MakePlan, MakeSpec

QUESTION = [{"role": "user", "content": "What is a pod?"}]
GOOD = [{"role": "assistant", "content": "The smallest unit Kubernetes schedules."}]
BAD = [{"role": "assistant", "content": "A whale."}]
WIDE = Limits(sequence=1000, prompt=1000)


def encode(tokenizer: PreTrainedTokenizerBase, example: Example, limits: Limits = WIDE) -> list[Ready]:
    """The rows of one example."""
    (rows,) = Encoder(tokenizer, limits).encode([("train.jsonl, line 1", example)])
    return rows


def answers(tokenizer: PreTrainedTokenizerBase, example: Example, limits: Limits = WIDE) -> EncodedAnswers:
    """The row of an example with answers."""
    (row,) = encode(tokenizer, example, limits)
    assert isinstance(row, EncodedAnswers)
    return row


def test_a_preference_is_one_prompt_and_two_answers(tokenizer: PreTrainedTokenizerBase) -> None:
    """B-06: prompt and answer together are the conversation as the chat template writes it."""
    row = answers(tokenizer, Preference(QUESTION, GOOD, BAD))
    for name, answer in (("chosen_ids", GOOD), ("rejected_ids", BAD)):
        whole = tokenizer.apply_chat_template([*QUESTION, *answer], tokenize=True, return_dict=False)
        assert row.prompt_ids + row.answers[name] == list(whole)
    assert tokenizer.decode(row.answers["rejected_ids"]).startswith("A whale.")
    assert row.columns()["length"] == 2 * len(row.prompt_ids) + sum(map(len, row.answers.values()))
    assert not row.is_cut


def test_texts_end_with_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    row = answers(tokenizer, Verdict("Question: what? Answer:", " a pod", is_good=False))
    assert tokenizer.decode(row.answers["completion_ids"]) == f" a pod{tokenizer.eos_token}"
    assert row.columns()["label"] is False


def test_answers_are_cut_to_what_the_prompt_leaves(tokenizer: PreTrainedTokenizerBase) -> None:
    """The prompt keeps its end, each answer its beginning, and both fit into a sequence."""
    row = answers(tokenizer, Preference("word " * 50, "yes " * 50, "no"), Limits(sequence=30, prompt=20))
    assert len(row.prompt_ids) == 20
    assert len(row.answers["chosen_ids"]) == 10
    assert row.prompt_cut


def test_plain_text_is_split_and_nothing_of_it_lost(tokenizer: PreTrainedTokenizerBase) -> None:
    """B-04: a document longer than a sequence becomes several rows."""
    limits = Limits(sequence=16, prompt=16, splits_texts=True)
    rows = encode(tokenizer, Text("word " * 40), limits)
    whole = encode(tokenizer, Text("word " * 40))[0]
    assert isinstance(whole, Encoded)
    assert len(rows) == -(-whole.length // 16)
    assert [token for row in rows if isinstance(row, Encoded) for token in row.input_ids] == whole.input_ids
    assert not any(row.is_cut for row in rows)


def test_the_model_answers_tasks_itself(tokenizer: PreTrainedTokenizerBase) -> None:
    """B-07: the row is kept for the reward functions; its tokens are those of the prompt."""
    (row,) = encode(tokenizer, Task(QUESTION, {"answer": "a group"}))
    assert isinstance(row, EncodedTask)
    assert json.loads(row.row) == {"prompt": QUESTION, "answer": "a group"}
    assert row.length == len(tokenizer.apply_chat_template(QUESTION, tokenize=True, add_generation_prompt=True, return_dict=False))


@pytest.mark.parametrize(
    ("fields", "purpose", "expected"),
    [
        ({"text": "a"}, "text", Text("a")),
        ({"prompt": "a", "completion": "b"}, "text", Text("ab")),
        ({"messages": [*QUESTION, *GOOD]}, "text", Chat([*QUESTION, *GOOD])),
        ({"prompt": QUESTION, "completion": GOOD}, "text", Chat([*QUESTION, *GOOD])),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", Preference("a", "b", "c")),
        ({"prompt": "a", "completion": "b", "label": True}, "verdict", Verdict("a", "b", is_good=True)),
        ({"prompt": "a", "answer": 4}, "task", Task("a", {"answer": 4})),
    ],
)
def test_examples_of_a_purpose(fields: Mapping[str, Any], purpose: Any, expected: Example) -> None:
    assert read_example(Row("train.jsonl, line 1", fields), purpose) == expected


def test_columns_of_a_task_stay_as_they_are(make_spec: MakeSpec) -> None:
    """A system prompt wraps the prompt alone, also where a column for reward functions is named like an answer."""
    spec = make_spec(systemPrompt="Be brief.").dataset
    reader = Reader(spec.parts[0], "grpo", Wrapping.of(spec, has_chat_template=True), Rejects(skip=False))
    found = reader.canonical(Row("train.jsonl, line 1", {"prompt": "What?", "completion": 4})).fields
    assert found["completion"] == 4
    assert found["prompt"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]


def test_a_column_with_a_reserved_name_is_refused(make_spec: MakeSpec) -> None:
    """Reward functions get columns by name, beside the library's own."""
    spec = make_spec().dataset
    reader = Reader(spec.parts[0], "grpo", Wrapping(), Rejects(skip=False))
    with pytest.raises(TrainerError, match=r"line 1: reward functions get columns by name, and completions means something else"):
        reader.canonical(Row("train.jsonl, line 1", {"prompt": "What?", "completions": 4}))


def test_generated_answers_share_the_sequence_with_the_prompt(make_spec: MakeSpec, model_dir: Any) -> None:
    """F-10: with grpo half of a sequence is for the answer; an answer as long as the sequence is refused."""
    spec = make_spec({"maxSeqLength": 64}).model_copy(update={"method": "grpo"})
    limits = Limits.of(spec, 64)
    assert (limits.prompt, limits.completion) == (32, 32)
    refused = make_spec({"maxSeqLength": 64}, contentMaxLength=64).model_copy(update={"method": "grpo"})
    with pytest.raises(TrainerError, match="64 generated tokens leave no room for the prompt in 64 tokens"):
        open_preparation(refused, model_dir)


@pytest.mark.parametrize(
    ("method", "row", "columns"),
    [
        ("dpo", {"prompt": "What?", "chosen": "yes", "rejected": "no"}, {"prompt_ids", "chosen_ids", "rejected_ids", "length"}),
        ("kto", {"prompt": "What?", "completion": "yes", "label": True}, {"prompt_ids", "completion_ids", "label", "length"}),
        ("grpo", {"prompt": "What?", "answer": "yes"}, {"row", "length"}),
        ("pretrain", {"text": "word " * 300}, {"input_ids", "labels", "seq_lengths"}),
    ],
)
def test_prepared_rows_have_the_columns_of_their_method(
    method: str, row: Mapping[str, Any], columns: set[str], make_plan: MakePlan
) -> None:
    grpo = {"grpo": {"rewardFunctions": [{"type": "exactMatch"}]}} if method == "grpo" else {}
    plan = make_plan([row] * 8, job={"method": method, **grpo})
    summary = prepare(plan, lambda _: None)
    train = datasets.load_from_disk(plan.output_dir / "train")
    assert set(train.column_names) == columns
    assert len(train) == summary.train_rows
    asked = summary.prompts[0]
    assert asked.prompt.strip()
    assert ("What?" in asked.prompt) == (method != "pretrain")
    expected = {"dpo": "yes", "kto": "yes", "grpo": ""}
    assert expected.get(method, asked.expected.strip()) == asked.expected.strip()
