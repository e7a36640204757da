"""From raw rows to examples (E-02, E-05, E-06, AC-02, AC-71)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.examples import Chat, Pair, Text, detect_format, parse
from finetune_trainer.prepare.rows import Row
from tests.unit.finetune_trainer.prepare.conftest import MakeSpec

TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def row(**fields: Any) -> Row:
    """A row of a file."""
    return Row("train.jsonl, line 7", fields)


@pytest.mark.parametrize(
    ("fields", "options", "expected"),
    [
        ({"messages": TURNS, "text": "both"}, {}, "messages"),
        ({"prompt": "a", "completion": "b", "text": "c"}, {}, "prompt-completion"),
        ({"text": "a"}, {}, "text"),
        ({"text": "a"}, {"format": "messages"}, "messages"),
        ({"question": "a", "answer": "b"}, {"promptColumn": "question", "outputColumn": "answer"}, "prompt-completion"),
        ({"question": "a", "completion": "b"}, {"promptColumn": "question"}, "prompt-completion"),
    ],
)
def test_the_first_row_decides(make_spec: MakeSpec, fields: dict[str, Any], options: dict[str, Any], expected: str) -> None:
    """A set column wins, then the named format, then what the row has."""
    assert detect_format(row(**fields), make_spec(**options).dataset) == expected


def test_an_unknown_row_lists_its_columns(make_spec: MakeSpec) -> None:
    """And the fields that name other columns."""
    with pytest.raises(TrainerError) as raised:
        detect_format(row(instruction="a", output="b"), make_spec().dataset)
    assert "train.jsonl, line 7: no known format; the columns are instruction, output" in raised.value.message
    assert "dataset.promptColumn" in raised.value.message


def test_columns_are_read_by_name(make_spec: MakeSpec) -> None:
    """AC-71: pairs are built from question and answer."""
    dataset = make_spec(promptColumn="question", outputColumn="answer").dataset
    assert parse(row(question="q", answer="a", other=1), "prompt-completion", dataset) == Pair("q", "a")


def test_a_wrong_column_is_named_with_those_present(make_spec: MakeSpec) -> None:
    """AC-71: the wrong name, its field, and the columns there are."""
    dataset = make_spec(promptColumn="question", outputColumn="reply").dataset
    with pytest.raises(TrainerError) as raised:
        parse(row(question="q", answer="a"), "prompt-completion", dataset)
    said = "train.jsonl, line 7: there is no column 'reply' (dataset.outputColumn); the columns are question, answer"
    assert raised.value.message == said


def test_chats_keep_what_a_template_may_use(make_spec: MakeSpec) -> None:
    """Fields that are null, as every row of a Parquet file has them, are dropped; text parts are joined; tools may be JSON text."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "content": "4"},
    ]
    example = parse(row(messages=messages, tools='[{"name": "f"}]'), "messages", make_spec().dataset)
    assert example == Chat(
        [
            {"role": "user", "content": "ab"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "4"},
        ],
        [{"name": "f"}],
    )


def test_pairs_may_be_conversations(make_spec: MakeSpec) -> None:
    """Prompt and completion as lists of messages."""
    example = parse(row(prompt=TURNS[:1], completion=TURNS[1:]), "prompt-completion", make_spec().dataset)
    assert example == Pair(TURNS[:1], TURNS[1:])


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
        ("messages", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be a text or a list of text parts, found 3"),
        ("messages", {"messages": TURNS, "tools": "{"}, "tools must be a list or its JSON text"),
        ("messages", {"messages": TURNS, "tools": 3}, "tools must be a list or its JSON text, found 3"),
        ("prompt-completion", {"prompt": "a", "completion": TURNS}, "prompt and completion must both be texts or both be lists"),
    ],
)
def test_malformed_rows_are_named(make_spec: MakeSpec, kind: Any, fields: dict[str, Any], said: str) -> None:
    """File, line, field, what was found and what was expected."""
    with pytest.raises(TrainerError) as raised:
        parse(row(**fields), kind, make_spec().dataset)
    assert raised.value.message.startswith(f"train.jsonl, line 7: {said}")


def test_text_is_taken_as_it_is(make_spec: MakeSpec) -> None:
    """No stripping: white space is training data."""
    assert parse(row(text=" a\n"), "text", make_spec().dataset) == Text(" a\n")
