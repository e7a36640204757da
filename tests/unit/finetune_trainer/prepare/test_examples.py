"""From canonical rows to examples: what is trained (E-02, E-05, E-06, AC-71)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.examples import Chat, Example, Pair, Text, read_example
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.layout import find_layout
from finetune_trainer.prepare.rows import Row
from tests.unit.finetune_trainer.prepare.conftest import MakeSpec

TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def row(**fields: Any) -> Row:
    """A row of a file."""
    return Row("train.jsonl, line 7", fields)


def read(found: Row, make_spec: MakeSpec, **dataset: Any) -> Example:
    """Read a raw row as sft does."""
    spec = make_spec(**dataset).dataset
    canonical = convert(found, find_layout(found, spec.parts[0], "sft"), "sft")
    return read_example(canonical, "tokens", assistant_only_loss=spec.assistant_only_loss)


@pytest.mark.parametrize(
    ("fields", "options", "expected"),
    [
        ({"messages": TURNS, "text": "both"}, {}, "messages"),
        ({"messages": [{"from": "human", "value": "Hello"}]}, {}, "sharegpt"),
        ({"instruction": "a", "output": "b", "text": "c"}, {}, "alpaca"),
        ({"prompt": "a", "completion": "b", "text": "c"}, {}, "prompt-completion"),
        ({"text": "a"}, {}, "text"),
        ({"text": "a"}, {"format": "messages"}, "messages"),
        ({"question": "a", "reply": "b"}, {"promptColumn": "question", "outputColumn": "reply"}, "prompt-completion"),
        ({"question": "a", "completion": "b"}, {"promptColumn": "question"}, "prompt-completion"),
    ],
)
def test_the_first_row_decides(make_spec: MakeSpec, fields: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    """A set column wins, then the named format, then what the row has."""
    assert find_layout(row(**fields), make_spec(**options).dataset.parts[0], "sft").format == expected


def test_columns_are_read_by_name(make_spec: MakeSpec) -> None:
    """AC-71: pairs are built from question and answer."""
    assert read(row(question="q", answer="a", other=1), make_spec, promptColumn="question", outputColumn="answer") == Pair("q", "a")


def test_a_wrong_column_is_named_with_those_present(make_spec: MakeSpec) -> None:
    """AC-71: the wrong name, its field, and the columns there are."""
    with pytest.raises(TrainerError) as raised:
        read(row(question="q", answer="a"), make_spec, promptColumn="question", outputColumn="reply")
    said = "train.jsonl, line 7: there is no column 'reply' (dataset.outputColumn); the columns are question, answer"
    assert raised.value.message == said


def test_chats_keep_what_a_template_may_use(make_spec: MakeSpec) -> None:
    """Fields that are null, as every row of a Parquet file has them, are dropped; text parts are joined; tools may be JSON text."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "4"},
    ]
    assert read(row(messages=messages, tools='[{"name": "f"}]'), make_spec) == Chat(
        [
            {"role": "user", "content": "ab"},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "4"},
        ],
        [{"name": "f"}],
    )


def test_pairs_may_be_conversations(make_spec: MakeSpec) -> None:
    """Prompt and completion as lists of messages."""
    assert read(row(prompt=TURNS[:1], completion=TURNS[1:]), make_spec) == Pair(TURNS[:1], TURNS[1:])


def test_which_turns_are_trained(make_spec: MakeSpec) -> None:
    """All tokens, unless the job asks for the assistant's turns or a message says whether it is trained."""
    assert read(row(messages=TURNS * 2), make_spec) == Chat(TURNS * 2)
    assert read(row(messages=TURNS * 2), make_spec, assistantOnlyLoss=True) == Chat(TURNS * 2, trained=frozenset({1, 3}))
    flagged = [TURNS[0], {**TURNS[1], "weight": 0}, *TURNS]
    assert read(row(messages=flagged), make_spec) == Chat(TURNS * 2, trained=frozenset({3}))


def parts(*flags: object) -> dict[str, object]:
    """An answer in parts, each with its flag or none."""
    return {"role": "assistant", "content": [{"type": "text", "text": "a", **({} if flag is None else {"train": flag})} for flag in flags]}


def test_parts_of_one_mind_flag_their_message(make_spec: MakeSpec) -> None:
    """E-02: axolotl's flags at the parts of a content, where they do not tell them apart."""
    flagged = [TURNS[0], parts(False, False), TURNS[0], parts(True)]
    assert read(row(messages=flagged), make_spec) == Chat(
        [TURNS[0], {"role": "assistant", "content": "aa"}, TURNS[0], {"role": "assistant", "content": "a"}], trained=frozenset({3})
    )


@pytest.mark.parametrize(
    "message",
    [
        parts(True, False),
        parts(False, None),
        {**parts(False), "train": True},
        {**TURNS[1], "train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
        {**TURNS[1], "training_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]},
    ],
)
def test_masks_within_a_message_are_refused(make_spec: MakeSpec, message: dict[str, Any]) -> None:
    """E-02: what is not to be learnt is never learnt without a word."""
    with pytest.raises(TrainerError, match=r"train\.jsonl, line 7: messages\[1\]\..*parts of a message cannot be trained apart"):
        read(row(messages=[TURNS[0], message]), make_spec)


@pytest.mark.parametrize("answers", ["a", [], [{"answer": "a", "rank": 1}], [{"answer": "a"}], [{"answer": 1, "rank": 1}, {"rank": 2}]])
def test_ranked_answers_that_cannot_be_compared(make_spec: MakeSpec, answers: object) -> None:
    """X49: the row and what is expected are named."""
    found = row(prompt="What is a pod?", answers=answers)
    layout = find_layout(found, make_spec().dataset.parts[0], "dpo")
    with pytest.raises(TrainerError, match=r"train\.jsonl, line 7: answers must"):
        convert(found, layout, "dpo")


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("text", {"text": 4}, "text must be a text, found 4"),
        ("text", {}, "there is no column 'text' (dataset.format text); the columns are none"),
        ("messages", {"messages": "Hello"}, 'messages must be a list like [{"role": "user", "content": "..."}], found "Hello"'),
        ("messages", {"messages": []}, "messages must be a list"),
        ("messages", {"messages": ["Hello"]}, 'messages[0] must be an object with role and content, found "Hello"'),
        (
            "messages",
            {"messages": [{"from": "human", "value": "a"}]},
            "messages[0].role must be one of system, developer, user, assistant, tool",
        ),
        ("messages", {"messages": [TURNS[0], {"role": "gpt", "content": "a"}]}, "messages[1].role must be one of"),
        ("messages", {"messages": [{"role": "user"}]}, "messages[0].content is missing"),
        ("messages", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be a text or a list of parts, found 3"),
        ("prompt-completion", {"prompt": "a", "completion": TURNS}, "prompt and completion must both be texts or both be lists"),
    ],
)
def test_malformed_rows_are_named(make_spec: MakeSpec, kind: Any, fields: dict[str, Any], said: str) -> None:
    """File, line, field, what was found and what was expected."""
    with pytest.raises(TrainerError) as raised:
        read(row(**fields), make_spec, format=kind)
    assert raised.value.message.startswith(f"train.jsonl, line 7: {said}")


def test_text_is_taken_as_it_is(make_spec: MakeSpec) -> None:
    """No stripping: white space is training data."""
    assert read(row(text=" a\n"), make_spec) == Text(" a\n")
