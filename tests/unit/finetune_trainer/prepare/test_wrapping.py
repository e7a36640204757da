"""System prompt, prompt template and the turns of a conversation around each example (E-10, E-11, AC-39)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rows import Row
from finetune_trainer.prepare.wrapping import Wrapping

USER = {"role": "user", "content": "What is a pod?"}
ANSWER = {"role": "assistant", "content": "A group."}
SYSTEM = {"role": "system", "content": "Be brief."}
TEMPLATE = "<system>{system_prompt}</system>{{{prompt}}} "


def wrap(wrapping: Wrapping, **fields: Any) -> dict[str, Any]:
    """Wrap a canonical row."""
    return dict(wrapping.wrap(Row("train.jsonl, line 7", fields)).fields)


def test_a_system_prompt_is_for_examples_without_one() -> None:
    """E-11: before the turns of a conversation; a system message of the row stays."""
    wrapping = Wrapping(system_prompt="Be brief.")
    assert wrap(wrapping, messages=[USER, ANSWER]) == {"messages": [SYSTEM, USER, ANSWER]}
    own = {"role": "system", "content": "Be kind."}
    assert wrap(wrapping, messages=[own, USER, ANSWER]) == {"messages": [own, USER, ANSWER]}
    assert wrap(wrapping, prompt=[USER], chosen=[ANSWER], rejected=[ANSWER])["prompt"] == [SYSTEM, USER]


def test_texts_become_turns_where_there_is_a_chat_template() -> None:
    """E-10: the chat template is the default; a base model's rows stay texts."""
    fields = {"prompt": "What is a pod?", "completion": "A group."}
    assert wrap(Wrapping(has_chat_template=True), **fields) == {"prompt": [USER], "completion": [ANSWER]}
    assert wrap(Wrapping("Be brief.", has_chat_template=True), **fields) == {"prompt": [SYSTEM, USER], "completion": [ANSWER]}
    assert wrap(Wrapping(), **fields) == fields
    with pytest.raises(TrainerError, match=r"line 7: dataset\.systemPrompt needs a chat template"):
        wrap(Wrapping("Be brief."), **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "What is a pod?", "completion": "A group."},
        {"prompt": [USER], "completion": [ANSWER]},
        {"messages": [USER, ANSWER]},
    ],
)
def test_a_template_has_both_values_at_their_slots(fields: dict[str, Any]) -> None:
    """AC-39; doubled braces stand for themselves."""
    wrapping = Wrapping("Be brief.", TEMPLATE, has_chat_template=True)
    assert wrap(wrapping, **fields) == {"prompt": "<system>Be brief.</system>{What is a pod?} ", "completion": "A group."}


def test_a_row_s_own_system_message_fills_the_slot() -> None:
    """Of preferences the answers become texts as well; values are not looked at for slots."""
    odd = {"role": "user", "content": "{system_prompt}"}
    wrapped = wrap(Wrapping(template=TEMPLATE), prompt=[SYSTEM, odd], chosen=[ANSWER], rejected=[ANSWER], other=1)
    assert wrapped == {"prompt": "<system>Be brief.</system>{{system_prompt}} ", "chosen": "A group.", "rejected": "A group.", "other": 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "a", "completion": "b"}, "the row no system message: set dataset.systemPrompt"),
        ({"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}, "is for one question and one answer, and this conversation has 3 turns"),
        ({"messages": [SYSTEM, USER, {**ANSWER, "tool_calls": []}]}, "completion: dataset.promptTemplate needs an answer that is one text"),
    ],
)
def test_rows_a_template_is_not_for(fields: dict[str, Any], said: str) -> None:
    """Named with what to do."""
    with pytest.raises(TrainerError) as raised:
        wrap(Wrapping(template=TEMPLATE), **fields)
    assert raised.value.message.startswith("train.jsonl, line 7")
    assert said in raised.value.message


def test_texts_without_a_prompt_stay() -> None:
    assert wrap(Wrapping("Be brief.", has_chat_template=True), text="a") == {"text": "a"}
