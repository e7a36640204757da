"""What every example gets around it: a system prompt, a prompt template, or the turns of a conversation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from finetune_api.models.sources import Dataset
from finetune_trainer.prepare.formats.convert import Utterance
from finetune_trainer.prepare.formats.turns import Message
from finetune_trainer.prepare.rows import Row, data_error

ANSWERS: Final = ("completion", "chosen", "rejected")
SLOT: Final = re.compile(r"\{\{|\}\}|\{prompt\}|\{system_prompt\}")
"""Pieces of a template that stand for something else; the schema has refused every other brace."""


@dataclass(frozen=True)
class Wrapping:
    """How prompts are put to the model (E-10, E-11)."""

    system_prompt: str | None = None
    template: str | None = None
    """``dataset.promptTemplate``."""
    has_chat_template: bool = False
    """Texts in prompt columns become the turns of a conversation."""
    assistant_only: bool = False
    """``dataset.assistantOnlyLoss``, which reading the rows heeds."""

    @classmethod
    def of(cls, dataset: Dataset, *, has_chat_template: bool) -> Wrapping:
        """As a spec asks for it."""
        return cls(dataset.system_prompt, dataset.prompt_template, has_chat_template, dataset.assistant_only_loss)

    @property
    def fields(self) -> list[str]:
        """Fields of the dataset block that ask for a prompt or turns."""
        asked = {
            "systemPrompt": self.system_prompt is not None,
            "promptTemplate": self.template is not None,
            "assistantOnlyLoss": self.assistant_only,
        }
        return [name for name, is_asked in asked.items() if is_asked]

    def wrap(self, row: Row) -> Row:
        """Wrap a canonical row.

        Raises :class:`TrainerError` (DataError) where a template does not fit: several turns, no system prompt for its slot.
        """
        fields = dict(row.fields)
        if "messages" in fields:
            messages = _messages(fields.pop("messages"))
            if self.template is None:
                return Row(row.where, {**fields, "messages": self._with_system(messages)})
            fields |= {"prompt": messages[:-1], "completion": messages[-1:]}
        if "prompt" not in fields:
            return row
        prompt = _utterance(fields["prompt"])
        if self.template is not None:
            fields["prompt"] = self._render(row.where, prompt)
            fields |= {name: _single(f"{row.where}: {name}", fields[name]) for name in ANSWERS if name in fields}
        elif isinstance(prompt, list):
            fields["prompt"] = self._with_system(prompt)
        elif self.has_chat_template:
            fields["prompt"] = self._with_system([{"role": "user", "content": prompt}])
            fields |= {name: [{"role": "assistant", "content": fields[name]}] for name in ANSWERS if name in fields}
        elif self.system_prompt is not None:
            raise data_error(
                f"{row.where}: dataset.systemPrompt needs a chat template, which the tokenizer does not have; set dataset.chatTemplate, "
                "or dataset.promptTemplate with {system_prompt} and {prompt}"
            )
        return Row(row.where, fields)

    def _with_system(self, messages: list[Message]) -> list[Message]:
        if self.system_prompt is None or messages[0].get("role") in ("system", "developer"):
            return messages
        return [{"role": "system", "content": self.system_prompt}, *messages]

    def _render(self, where: str, prompt: Utterance) -> str:
        assert self.template is not None, "only called with a template"
        system, question = self.system_prompt, prompt
        if isinstance(prompt, list):
            turns = list(prompt)
            if turns and turns[0].get("role") in ("system", "developer"):
                system = str(turns.pop(0).get("content", ""))
            if len(turns) != 1 or turns[0].get("role") != "user":
                raise data_error(
                    f"{where}: dataset.promptTemplate is for one question and one answer, and this conversation has "
                    f"{len(turns)} turns before its last; use dataset.chatTemplate instead"
                )
            question = _text(where, turns[0])
        if system is None and "{system_prompt}" in self.template:
            raise data_error(f"{where}: dataset.promptTemplate has {{system_prompt}}, the row no system message: set dataset.systemPrompt")
        values = {"{{": "{", "}}": "}", "{prompt}": str(question), "{system_prompt}": system or ""}
        return SLOT.sub(lambda slot: values[slot[0]], self.template)


def _messages(value: object) -> list[Message]:
    assert isinstance(value, list), "canonical rows hold messages as lists"
    return value


def _utterance(value: object) -> Utterance:
    assert isinstance(value, str | list), "canonical prompts are texts or messages"
    return value


def _single(where: str, answer: object) -> str:
    """The text of an answer."""
    if isinstance(answer, str):
        return answer
    messages = _messages(answer)
    if len(messages) != 1 or messages[0].get("role") != "assistant" or "tool_calls" in messages[0]:
        raise data_error(f"{where}: dataset.promptTemplate needs an answer that is one text of the assistant")
    return _text(where, messages[0])


def _text(where: str, message: Message) -> str:
    if not isinstance(message["content"], str):
        raise data_error(
            f"{where}: dataset.promptTemplate makes one text of a prompt and has no place for images; use dataset.chatTemplate"
        )
    return message["content"]
