"""The matrix of formats: one real file of each, for each method that takes it, as JSONL, JSON, CSV and Parquet (E-01 to E-06, X49).

``tests/data/formats`` holds the files as their projects document them. What is checked is what a method is given: roles, texts, labels.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.layout import Layout, find_layout
from finetune_trainer.prepare.reading import Reader
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import DataFile, Row
from finetune_trainer.prepare.wrapping import Wrapping

FORMATS = Path(__file__).parents[4] / "tests/data/formats"
KINDS = ("jsonl", "json", "csv", "parquet")
AUTO = DataSource(uri="configmap://rows/train.jsonl")


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def call(**more: Any) -> dict[str, Any]:
    function = {"name": "find_order", "arguments": {"order": 7}}
    return {"role": "assistant", "tool_calls": [{"type": "function", **more, "function": function}]}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


ASKED, GOOD, BAD = user("What is a pod?"), answer("A group of containers."), answer("Many things.")
COMPARED = {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}
BRIEF = {**COMPARED, "prompt": [system("Be brief."), ASKED]}
JUDGED = [{"prompt": [ASKED], "completion": [GOOD], "label": True}, {"prompt": [ASKED], "completion": [BAD], "label": False}]
TEACHER = [system("You teach Kubernetes."), ASKED, GOOD, user("And a node?"), answer("A machine of the cluster.")]
SHIPPED = [user("Where is order 7?"), call(), {"role": "tool", "content": "shipped"}, answer("It was shipped.")]
ORDER_TOOL = {"name": "find_order", "description": "Looks an order up."}

EXPECTED: Mapping[tuple[str, str], tuple[str, list[dict[str, Any]]]] = {
    ("openai-messages", "sft"): (
        "messages",
        [
            {
                "messages": [
                    system("You are a clerk."),
                    user("Where is order 7?"),
                    call(id="call_1"),
                    {"role": "tool", "tool_call_id": "call_1", "content": "shipped"},
                    answer("It was shipped."),
                ],
                "tools": [
                    tool(**ORDER_TOOL, parameters={"type": "object", "properties": {"order": {"type": "integer"}}}),
                ],
            },
            {"messages": [user("Hello"), {**answer("Yes?"), "loss": False}, ASKED, {**GOOD, "loss": True}]},
        ],
    ),
    ("sharegpt", "sft"): (
        "sharegpt",
        [{"messages": TEACHER}, {"messages": SHIPPED, "tools": [{**ORDER_TOOL, "parameters": {"type": "object"}}]}],
    ),
    ("swift-conversation", "sft"): ("sharegpt", [{"messages": TEACHER}]),
    ("swift-messages", "sft"): (
        "messages",
        [{"messages": [*SHIPPED[:3], {**SHIPPED[3], "loss": True}], "tools": [tool("find_order")]}],
    ),
    ("swift-query", "sft"): (
        "prompt-completion",
        [{"prompt": TEACHER[:4], "completion": TEACHER[4:]}, {"prompt": "What is a pod?", "completion": "A group of containers."}],
    ),
    ("alpaca", "sft"): (
        "alpaca",
        [
            {"prompt": [user("Translate to German.\na pod")], "completion": [answer("ein Pod")]},
            {
                "prompt": [system("You translate."), user("Translate a pod to German."), answer("ein Pod"), user("And a node?")],
                "completion": [answer("ein Knoten")],
            },
        ],
    ),
    ("columns", "sft"): (
        "prompt-completion",
        [
            {"prompt": "What is a pod?", "completion": "A group of containers."},
            {"prompt": "What is a node?", "completion": "A machine of the cluster."},
        ],
    ),
    ("trl-prompt-completion", "sft"): ("prompt-completion", [{"prompt": [ASKED], "completion": [GOOD]}]),
    ("text", "sft"): ("text", [{"text": "A pod is a group of containers."}, {"text": "A node is a machine of the cluster."}]),
    ("text", "pretrain"): ("text", [{"text": "A pod is a group of containers."}, {"text": "A node is a machine of the cluster."}]),
    ("openai-dpo", "dpo"): ("openai-dpo", [BRIEF]),
    ("llama-factory-alpaca-dpo", "dpo"): (
        "alpaca",
        [{"prompt": [user("Translate to German.\na pod")], "chosen": [answer("ein Pod")], "rejected": [answer("eine Schote")]}],
    ),
    ("llama-factory-sharegpt-dpo", "dpo"): ("sharegpt", [{**COMPARED, "prompt": [user("Hello"), answer("Yes?"), ASKED]}]),
    ("axolotl-chat-template-dpo", "dpo"): ("messages", [BRIEF]),
    ("axolotl-argilla", "dpo"): ("preference", [BRIEF]),
    ("axolotl-intel", "dpo"): ("preference", [BRIEF]),
    ("axolotl-ultra", "dpo"): ("preference", [COMPARED]),
    ("axolotl-nectar", "dpo"): (
        "preference",
        [{"prompt": "What is a pod?", "chosen": "A group of containers.", "rejected": "Many things."}],
    ),
    ("swift-dpo", "dpo"): ("messages", [COMPARED]),
    ("swift-dpo-messages", "dpo"): ("messages", [COMPARED]),
    ("trl-preference", "dpo"): (
        "preference",
        [{"prompt": "What is a pod?", "chosen": "A group of containers.", "rejected": "Many things."}],
    ),
    ("trl-implicit-prompt", "dpo"): ("preference", [COMPARED]),
    ("openai-dpo", "reward"): ("openai-dpo", [BRIEF]),
    ("trl-kto", "kto"): (
        "prompt-completion",
        [
            {"prompt": "What is a pod?", "completion": "A group of containers.", "label": True},
            {"prompt": "What is a pod?", "completion": "Many things.", "label": False},
        ],
    ),
    ("llama-factory-kto", "kto"): ("sharegpt", JUDGED),
    ("swift-kto", "kto"): ("messages", JUDGED[::-1]),
    ("trl-grpo", "grpo"): ("prompt-completion", [{"prompt": [user("What is 2 + 2?")], "solution": "4"}]),
    ("swift-grpo", "grpo"): ("messages", [{"prompt": [user("What is 2 + 2?")], "solution": "4"}]),
}


def write(rows: list[dict[str, Any]], kind: str, directory: Path) -> DataFile:
    """Write rows as a kind of file: CSV has lists and objects as JSON text, Parquet fills the fields of all rows with nulls."""
    path = directory / f"train.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == "parquet":
        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.Table.from_pylist([{name: as_parquet(row.get(name)) for name in names} for row in rows]), path)
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    return DataFile(path, path.name)


def as_parquet(value: Any) -> Any:
    """A column has one type: contents that are texts in some rows and parts in others are kept as JSON text."""
    mixed = isinstance(value, list) and any(isinstance(turn, dict) and isinstance(turn.get("content"), list) for turn in value)
    return json.dumps(value) if mixed or (isinstance(value, list) and any("tool_calls" in str(turn) for turn in value)) else value


def as_cell(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "method"), EXPECTED, ids=str)
def test_format_method_and_kind_of_file(name: str, method: str, kind: str, tmp_path: Path) -> None:
    """The format is found, and rows are the same whatever file they are in."""
    rows = [json.loads(line) for line in (FORMATS / f"{name}.jsonl").read_text().splitlines()]
    if name == "openai-messages" and kind == "parquet":
        rows = [{**row, "messages": json.dumps(row["messages"])} for row in rows]
    reader = Reader(AUTO, method, Wrapping(), Rejects(skip=False))
    found = [row.canonical for row in reader.read([write(rows, kind, tmp_path)])]
    kept = {"messages", "tools", "prompt", "completion", "text", "chosen", "rejected", "label", "solution"}
    shown = [{key: value for key, value in row.fields.items() if key in kept and (key != "messages" or method != "grpo")} for row in found]
    layout, expected = EXPECTED[name, method]
    assert shown == expected
    assert reader.layout is not None
    assert reader.layout.format == layout


def test_every_file_is_in_the_matrix() -> None:
    assert {path.stem for path in FORMATS.glob("*.jsonl")} == {name for name, _ in EXPECTED}


def refusal(fields: Mapping[str, Any], method: str = "sft", layout: Layout | None = None) -> str:
    """What is said of a row."""
    row = Row("train.jsonl, line 7", fields)
    with pytest.raises(TrainerError) as raised:
        convert(row, layout or find_layout(row, AUTO, method), method)
    return raised.value.message.removeprefix("train.jsonl, line 7: ")


@pytest.mark.parametrize(
    ("fields", "method", "said"),
    [
        ({"a": "b"}, "sft", "no known format for method sft; the columns are a. Expected messages, conversations"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "sft", "rows with chosen and rejected are for methods dpo and reward"),
        (
            {"text": "a"},
            "dpo",
            "no known format for method dpo; the columns are text. Expected messages, conversations, instruction or prompt",
        ),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "sft", "conversations[0].from must be one of system, developer, human"),
        ({"conversations": [{"from": "human"}]}, "sft", "conversations[0].content is missing"),
        ({"conversations": [{"from": "function_call", "value": "f(1)"}]}, "sft", "conversations[0] must be the JSON of a call"),
        ({"conversations": ["a"]}, "sft", 'conversations[0] must be an object with from and value, found "a"'),
        ({"instruction": "a", "output": 3}, "sft", "output must be a text, found 3"),
        ({"instruction": "a", "output": "b", "history": ["a"]}, "sft", 'history must be a list of [question, answer], found ["a"]'),
        ({"messages": [user("a")], "tools": "{"}, "sft", "tools must be a list or its JSON text"),
        ({"messages": [user("a")], "tools": 3}, "sft", "tools must be a list or its JSON text, found 3"),
        ({"messages": [{**answer("a"), "weight": 0.5}]}, "sft", "messages[0].weight must be true or false (or 1 or 0), found 0.5"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "sft",
            "messages[0].tool_calls[0].function.arguments must be an object or its JSON text",
        ),
        ({"messages": [user("a"), GOOD]}, "dpo", "there is no column rejected, the worse answer; the columns are messages"),
        ({"messages": [user("a")], "rejected_response": "b"}, "dpo", "there is no column chosen, the better answer"),
        ({"chosen": [ASKED, GOOD], "rejected": [user("b"), BAD]}, "dpo", "chosen and rejected must begin with the same messages"),
        ({"input": {}, "preferred_output": [GOOD]}, "dpo", "input.messages must be a list like"),
        ({"input": {"messages": [ASKED]}, "preferred_output": [GOOD]}, "dpo", "there is no column 'non_preferred_output'"),
        ({"prompt": "a", "completion": "b"}, "kto", "there is no column label or kto_tag"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "kto", 'label must be true or false, found "good"'),
        ({"messages": [user("a")], "label": True}, "kto", "the conversation must end with an answer of the assistant, which label judges"),
    ],
)
def test_malformed_rows_are_named(fields: Mapping[str, Any], method: str, said: str) -> None:
    """File, line, field, what was found and what was expected (E-01)."""
    assert said in refusal(fields, method)


def test_a_format_of_another_method_is_refused() -> None:
    """A declared format is not guessed around."""
    row = {"input": {"messages": [ASKED]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert refusal(row, "sft", Layout("openai-dpo")) == "format openai-dpo is for methods dpo and reward, not for sft"
    assert "format text has no answers to compare" in refusal({"text": "a"}, "dpo", Layout("text"))


def test_columns_may_have_any_name() -> None:
    """E-05: with dpo, outputColumn names the better answer."""
    source = AUTO.model_copy(update={"prompt_column": "frage", "output_column": "gut"})
    row = Row("train.jsonl, line 1", {"frage": "a", "gut": "b", "rejected": "c"})
    assert convert(row, find_layout(row, source, "dpo"), "dpo").fields == {"prompt": "a", "chosen": "b", "rejected": "c"}


def test_an_answer_that_is_json_stays_a_text() -> None:
    """Only messages are read from JSON text."""
    row = Row("train.jsonl, line 1", {"prompt": "[1, 2]", "completion": '{"a": 1}'})
    assert convert(row, find_layout(row, AUTO, "sft"), "sft").fields == {"prompt": "[1, 2]", "completion": '{"a": 1}'}
