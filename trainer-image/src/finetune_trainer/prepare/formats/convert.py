"""From a raw row to a canonical one: each format is read as a dialogue, each method takes from it what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from finetune_trainer.prepare.formats import turns
from finetune_trainer.prepare.formats.fields import column, names, optional_text, show, structured, text, tools
from finetune_trainer.prepare.formats.layout import (
    CHOSEN,
    CONVERSATIONS,
    LABELS,
    MESSAGES,
    PREFERENCE_METHODS,
    RANKED,
    REJECTED,
    REJECTED_BESIDE_MESSAGES,
    RESERVED,
    TEXT,
    Layout,
    first,
)
from finetune_trainer.prepare.formats.turns import LOSS, Message
from finetune_trainer.prepare.rows import Row, data_error

Utterance: TypeAlias = str | list[Message]
"""A text, or messages."""
SYSTEM: Final = ("system", "system_prompt")
TRUE: Final = (True, "true", "True", "1")
FALSE: Final = (False, "false", "False", "0")
"""How a label is written; 1 and 0 equal True and False."""


@dataclass(frozen=True)
class Dialogue:
    """What a row says, before a method looks at it."""

    prompt: Utterance
    answer: Utterance | None
    """None where the row has no answer of its own, only chosen and rejected ones."""


def convert(row: Row, layout: Layout, method: str) -> Row:
    """Read a row as its canonical form for a method.

    Raises :class:`TrainerError` (DataError) naming file, line, field and what was expected.
    """
    beside = {"tools": given} if (given := _tools(row, layout)) else {}
    if method in PREFERENCE_METHODS:
        return Row(row.where, {**_preference(row, layout), **beside})
    if layout.format in ("preference", "openai-dpo"):
        raise data_error(f"{row.where}: format {layout.format} is for methods dpo and reward, not for {method}")
    if method == "grpo":
        return Row(row.where, {**_task(row, layout), **beside})
    if method == "kto":
        return Row(row.where, {**_labelled(row, layout), **beside})
    return Row(row.where, {**_demonstration(row, layout), **beside})


def read_prompt(row: Row, layout: Layout) -> Utterance:
    """What a row asks, whatever method it is for; its answers need not be there.

    Raises :class:`TrainerError` (DataError) when it asks nothing.
    """
    if layout.format == "openai-dpo" or (layout.format == "preference" and layout.prompt not in row.fields):
        canonical = _preference(row, layout)["prompt"]
        assert isinstance(canonical, str | list), "prompts are texts or messages"
        return canonical
    return _plain(_read(row, layout, has_answer=False).prompt)


def _tools(row: Row, layout: Layout) -> object:
    if layout.format != "openai-dpo":
        return tools(row)
    nested = structured(row.fields.get("input"))
    return tools(Row(f"{row.where}: input", nested)) if isinstance(nested, Mapping) else None


def _demonstration(row: Row, layout: Layout) -> dict[str, object]:
    """Rows of sft and pretrain."""
    if layout.format == "text":
        return {"text": text(row, TEXT, "dataset.format text")}
    if layout.format in ("messages", "sharegpt"):
        return {"messages": _conversation(row, layout)}
    dialogue = _read(row, layout, has_answer=True)
    assert dialogue.answer is not None, "alpaca and columns were read with their answer"
    return {"prompt": _plain(dialogue.prompt), "completion": _plain(dialogue.answer)}


def _labelled(row: Row, layout: Layout) -> dict[str, object]:
    """Rows of kto: an answer and whether it is a good one."""
    name = first(row.fields, LABELS)
    if name is None:
        raise data_error(f"{row.where}: there is no column label or kto_tag, which says whether the answer is good; found {names(row)}")
    value = row.fields[name]
    if value not in TRUE and value not in FALSE:
        raise data_error(f"{row.where}: {name} must be true or false, found {show(value)}")
    dialogue = _read(row, layout, has_answer=True)
    if dialogue.answer is None:
        raise data_error(f"{row.where}: the conversation must end with an answer of the assistant, which {name} judges")
    return {"prompt": _plain(dialogue.prompt), "completion": _plain(dialogue.answer), "label": value in TRUE}


def _task(row: Row, layout: Layout) -> dict[str, object]:
    """Rows of grpo: a prompt, and what reward functions get beside the answers to it."""
    kept = {name: value for name, value in row.fields.items() if name not in (MESSAGES, *CONVERSATIONS)}
    taken = sorted(RESERVED & kept.keys())
    if taken:
        raise data_error(f"{row.where}: reward functions get columns by name, and {', '.join(taken)} means something else there")
    return {**kept, "prompt": _plain(_read(row, layout, has_answer=False).prompt)}


def _preference(row: Row, layout: Layout) -> dict[str, object]:
    """Rows of dpo and reward: two answers to one prompt."""
    if layout.format == "openai-dpo":
        given = structured(column(row, "input", "dataset.format openai-dpo"))
        inner = given.get(MESSAGES) if isinstance(given, Mapping) else None
        prompt: Utterance = turns.messages(f"{row.where}: input.messages", inner)
        answers = [_answer(row, name) for name in ("preferred_output", "non_preferred_output")]
        return _compared(row, prompt, *answers)
    if layout.format == "text":
        raise data_error(f"{row.where}: format text has no answers to compare; method dpo or reward needs chosen and rejected")
    chosen = layout.chosen or first(row.fields, CHOSEN)
    if layout.format == "preference" and chosen is None and RANKED in row.fields:
        return _compared(row, _read(row, layout, has_answer=False).prompt, *_ranked(row))
    if layout.format in ("messages", "sharegpt"):
        rejected = first(row.fields, REJECTED_BESIDE_MESSAGES)
        found = _conversation(row, layout)
        dialogue = _split(found) if chosen is None else Dialogue(found, None)
    else:
        rejected = first(row.fields, REJECTED)
        dialogue = Dialogue("", None) if _is_implicit(row, layout, chosen) else _read(row, layout, has_answer=False)
    if rejected is None or (chosen is None and dialogue.answer is None):
        missing, quality = ("rejected", "worse") if rejected is None else ("chosen", "better")
        raise data_error(f"{row.where}: there is no column {missing}, the {quality} answer; the columns are {names(row)}")
    better = dialogue.answer if chosen is None else _answer(row, chosen)
    assert better is not None, "one of the two is there, see above"
    return _compared(row, dialogue.prompt, better, _answer(row, rejected))


def _ranked(row: Row) -> tuple[str, str]:
    """The answer of the best rank, 1, and that of the worst."""
    answers = structured(row.fields[RANKED])
    found = [answer for answer in answers if isinstance(answer, Mapping)] if isinstance(answers, list) else []
    ranks = [answer.get("rank") for answer in found]
    if not found or not all(isinstance(rank, int | float) and not isinstance(rank, bool) for rank in ranks):
        raise data_error(f'{row.where}: {RANKED} must be a list like [{{"answer": "...", "rank": 1}}], found {show(answers)}')
    ordered = sorted(found, key=lambda answer: float(str(answer["rank"])))
    best, worst = ordered[0], ordered[-1]
    if best["rank"] == worst["rank"]:
        raise data_error(f"{row.where}: {RANKED} must have two ranks to compare, found {show(ranks)}")
    texts = [answer.get("answer") for answer in (best, worst)]
    if not all(isinstance(text, str) for text in texts):
        raise data_error(f"{row.where}: {RANKED} must have texts under answer, found {show(texts)}")
    return str(texts[0]), str(texts[1])


def _is_implicit(row: Row, layout: Layout, chosen: str | None) -> bool:
    """Whether chosen and rejected are whole conversations that begin with the prompt."""
    columns = layout.format in ("preference", "prompt-completion")
    return columns and layout.prompt not in row.fields and chosen is not None and as_turns(row.fields.get(chosen)) is not None


def _compared(row: Row, prompt: Utterance, chosen: Utterance, rejected: Utterance) -> dict[str, object]:
    """Prompt and answers of one kind; answers that are whole conversations lose their beginning, which is the prompt."""
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    turns_before = _as_messages(prompt, "user") if prompt else []
    better, worse = (_after(turns_before, _as_messages(answer)) for answer in (chosen, rejected))
    if better[0]["role"] != "assistant" and worse[0]["role"] != "assistant":
        most = min(len(better), len(worse)) - 1
        shared = next((at for at, (a, b) in enumerate(zip(better, worse, strict=False)) if a != b), most)
        if min(shared, most) < 1:
            raise data_error(f"{row.where}: chosen and rejected must begin with the same messages, the prompt, and end with an answer each")
        shared = min(shared, most)
        # What the row says of the prompt elsewhere repeats its question; only a system message may be new.
        system = [message for message in turns_before[:1] if message["role"] == "system" and better[0]["role"] != "system"]
        turns_before, better, worse = [*system, *better[:shared]], better[shared:], worse[shared:]
    if not turns_before or better[0]["role"] != "assistant" or worse[0]["role"] != "assistant":
        raise data_error(f"{row.where}: chosen and rejected must be answers of the assistant to one prompt")
    return {"prompt": _plain(turns_before), "chosen": _plain(better), "rejected": _plain(worse)}


def _after(prompt: list[Message], answer: list[Message]) -> list[Message]:
    """An answer without the prompt it may repeat."""
    return answer[len(prompt) :] if len(answer) > len(prompt) and answer[: len(prompt)] == prompt else answer


def _answer(row: Row, name: str) -> Utterance:
    """An answer: a text, one message, or several."""
    value = column(row, name, "the answers to compare")
    if isinstance(value, Mapping):
        value = [value]
    found = as_turns(value)
    if found is None and isinstance(value, str):
        return value
    return _turns(f"{row.where}: {name}", value if found is None else found)


def _turns(where: str, value: object) -> list[Message]:
    return turns.sharegpt_turns(where, value) if turns.looks_like_sharegpt(value) else turns.messages(where, value)


def as_turns(value: object) -> list[object] | None:
    """Messages, also one alone, or the JSON text of them; None for anything else, such as an answer that happens to be JSON."""
    found = structured(value)
    many = [found] if isinstance(found, Mapping) else found
    if isinstance(many, list) and many and all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in many):
        return many
    return None


def _read(row: Row, layout: Layout, *, has_answer: bool) -> Dialogue:
    """Read the dialogue of a row. ``has_answer``: a column with the answer must be there."""
    if layout.format in ("messages", "sharegpt"):
        return _split(_conversation(row, layout))
    if layout.format == "alpaca":
        return _alpaca(row, has_answer=has_answer)
    if layout.format == "text":
        raise data_error(f"{row.where}: format text has no prompt; use another dataset.format, or method sft or pretrain")
    return _columns(row, layout, has_answer=has_answer)


def _split(found: list[Message]) -> Dialogue:
    """A conversation and the answer it ends with, if it does."""
    return Dialogue(found[:-1], found[-1:]) if found[-1]["role"] == "assistant" and len(found) > 1 else Dialogue(found, None)


def _conversation(row: Row, layout: Layout) -> list[Message]:
    name = first(row.fields, (MESSAGES,) if layout.format == "messages" else (*CONVERSATIONS, MESSAGES)) or (
        MESSAGES if layout.format == "messages" else CONVERSATIONS[0]
    )
    value = column(row, name, f"dataset.format {layout.format}")
    where = f"{row.where}: {name}"
    found = turns.messages(where, value) if layout.format == "messages" else turns.sharegpt_turns(where, value)
    return _with_system(found, optional_text(row, *SYSTEM))


def _alpaca(row: Row, *, has_answer: bool) -> Dialogue:
    instruction, given = text(row, "instruction", "dataset.format alpaca"), optional_text(row, "input")
    prompt = _history(row)
    prompt.append({"role": "user", "content": "\n".join(part for part in (instruction, given) if part)})
    answer_text = text(row, "output", "dataset.format alpaca") if has_answer else None
    return Dialogue(
        _with_system(prompt, optional_text(row, *SYSTEM)),
        [{"role": "assistant", "content": answer_text}] if answer_text is not None else None,
    )


def _columns(row: Row, layout: Layout, *, has_answer: bool) -> Dialogue:
    prompt = _utterance(row, layout.prompt, "dataset.promptColumn")
    answer = _utterance(row, layout.completion, "dataset.outputColumn") if has_answer else None
    if answer is not None and isinstance(prompt, list) != isinstance(answer, list):
        raise data_error(f"{row.where}: {layout.prompt} and {layout.completion} must both be texts or both be lists of messages")
    system = optional_text(row, *(name for name in SYSTEM if name not in (layout.prompt, layout.completion)))
    history = _history(row)
    if not system and not history:
        return Dialogue(prompt, answer)
    asked = _with_system([*history, *_as_messages(prompt, "user")], system)
    return Dialogue(asked, None if answer is None else _as_messages(answer))


def _history(row: Row) -> list[Message]:
    """Earlier turns, as LLaMA-Factory and ms-swift have them: a list of [question, answer]."""
    history = structured(row.fields.get("history") or [])
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise data_error(f"{row.where}: history must be a list of [question, answer], found {show(history)}")
    roles = ("user", "assistant")
    return [{"role": role, "content": str(words)} for pair in history for role, words in zip(roles, pair, strict=True)]


def _utterance(row: Row, name: str, wanted_by: str) -> Utterance:
    value = column(row, name, wanted_by)
    found = as_turns(value)
    if found is not None or isinstance(value, list):
        return _turns(f"{row.where}: {name}", value if found is None else found)
    return text(row, name, wanted_by)


def _with_system(found: list[Message], system: str) -> list[Message]:
    return [{"role": "system", "content": system}, *found] if system and found[0]["role"] != "system" else found


def _as_messages(utterance: Utterance, role: str = "assistant") -> list[Message]:
    return utterance if isinstance(utterance, list) else [{"role": role, "content": utterance}]


def _plain(utterance: Utterance) -> Utterance:
    """Without the flags of the messages: outside of sft the whole answer is trained."""
    if isinstance(utterance, str):
        return utterance
    return [{key: value for key, value in message.items() if key != LOSS} for message in utterance]
