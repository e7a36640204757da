"""Turns of a conversation: the names of OpenAI, ShareGPT, LLaMA-Factory, ms-swift and axolotl become ``role`` and ``content``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, TypeAlias

from finetune_trainer.prepare.formats.fields import show, structured
from finetune_trainer.prepare.rows import data_error

Message: TypeAlias = dict[str, object]
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES: Final[Mapping[str, str]] = {
    "system": "system",
    "developer": "developer",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool": "tool",
}
"""Speaker -> role. The library takes ``human`` and ``gpt`` for roles of their own and trains them so, without a word."""
CALLS: Final = ("function_call", "tool_call")
"""Speakers whose text is the JSON of a call: an assistant's turn."""
LOSS: Final = "loss"
"""Canonical key of a message that says whether it is trained."""
LOSS_KEYS: Final = (LOSS, "weight", "train", "training")
"""ms-swift, OpenAI and axolotl in turn; true, false, 1 or 0."""
DETAILS: Final = ("train_detail", "training_detail")
"""axolotl's keys for characters of a message that are trained apart from the others."""
IMAGE_PARTS: Final = ("image", "image_url", "input_image")
"""Types of parts that show an image: of transformers and Anthropic, and both of OpenAI."""


def messages(where: str, value: object) -> list[Message]:
    """Read messages as OpenAI has them. ``where`` names row and column.

    Raises :class:`TrainerError` (DataError) naming the message and the field that do not fit.
    """
    return [_message(f"{where}[{index}]", turn) for index, turn in enumerate(_list(where, value, '{"role": "user", "content": "..."}'))]


def sharegpt_turns(where: str, value: object) -> list[Message]:
    """Read turns of ShareGPT: ``from`` and ``value`` (or ``role`` and ``content``), or pairs of ``human`` and ``assistant``."""
    found: list[Message] = []
    for index, turn in enumerate(_list(where, value, '{"from": "human", "value": "..."}')):
        place = f"{where}[{index}]"
        if isinstance(turn, Mapping) and "human" in turn and "assistant" in turn:
            pair = (("user", "human"), ("assistant", "assistant"))
            found += [_message(place, {"role": role, "content": turn[key]}) for role, key in pair]
        else:
            found.append(sharegpt_turn(place, turn))
    return found


def sharegpt_turn(where: str, turn: object) -> Message:
    """Read one turn of ShareGPT."""
    if not isinstance(turn, Mapping):
        raise data_error(f"{where} must be an object with from and value, found {show(turn)}")
    role_key, content_key = ("from" if turn.get("from") is not None else "role"), ("value" if "value" in turn else "content")
    speaker = turn.get(role_key)
    rest = {key: value for key, value in turn.items() if key not in ("from", "role", "value", "content")}
    if speaker in CALLS:
        return _message(where, {**rest, "role": speaker, "content": turn.get(content_key)})
    role = SHAREGPT_ROLES.get(str(speaker))
    if role is None:
        raise data_error(f"{where}.{role_key} must be one of {', '.join((*SHAREGPT_ROLES, *CALLS))}, found {show(speaker)}")
    return _message(where, {**rest, "role": role, "content": turn.get(content_key)})


def looks_like_sharegpt(value: object) -> bool:
    """Whether a list of turns has speakers (``from``) instead of roles."""
    turns = structured(value)
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], Mapping) and turns[0].get("from") is not None


def _list(where: str, value: object, like: str) -> list[object]:
    turns = structured(value)
    if not isinstance(turns, list) or not turns:
        raise data_error(f"{where} must be a list like [{like}], found {show(value)}")
    return turns


def _message(where: str, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise data_error(f"{where} must be an object with role and content, found {show(message)}")
    # Parquet gives every row the fields of all rows; a template must not see those that are null here.
    clean: Message = {str(key): value for key, value in message.items() if value is not None}
    role = clean.get("role")
    if role in CALLS:
        clean |= {"role": "assistant", "tool_calls": _calls(where, clean.pop("content", None))}
    elif role == "tool_response":
        clean["role"] = "tool"
    elif role not in ROLES:
        raise data_error(f"{where}.role must be one of {', '.join(ROLES)}, found {show(role)}")
    if "tool_calls" in clean:
        clean["tool_calls"] = [_call(f"{where}.tool_calls[{index}]", call) for index, call in enumerate(_tool_calls(where, clean))]
    if not clean.get("tool_calls"):
        clean.pop("tool_calls", None)
        if "content" not in clean:
            raise data_error(f"{where}.content is missing")
    if detail := next((key for key in DETAILS if clean.get(key)), None):
        raise data_error(f"{where}.{detail}: {_APART}")
    if "content" in clean:
        clean |= _part_flag(where, clean)
        clean["content"] = _content(where, clean["content"])
    return _flagged(where, clean)


_APART: Final = "parts of a message cannot be trained apart; leave it out, or say train: true or false of the whole message"


def _part_flag(where: str, message: Message) -> Message:
    """The flag that the parts of a content carry instead of their message, where all are alike."""
    content = message["content"]
    parts = (
        [part for part in content if isinstance(part, Mapping) and part.get("type") not in IMAGE_PARTS] if isinstance(content, list) else []
    )
    flags = [next((part[key] for key in LOSS_KEYS if part.get(key) is not None), None) for part in parts]
    said = {flag for flag in flags if isinstance(flag, bool | int)}
    if all(flag is None for flag in flags):
        return {}
    beside = {message[key] for key in LOSS_KEYS if isinstance(message.get(key), bool | int)}
    if None in flags or len(said | beside) != 1:
        raise data_error(f"{where}.content: {_APART}; found {show(flags)}")
    return {LOSS: said.pop()} if not beside else {}


def _content(where: str, content: object) -> str | list[Message]:
    """A text, also where it is in parts; a list of parts only where there are images among them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise data_error(f"{where}.content must be a text or a list of parts, found {show(content)}")
    parts = [_part(f"{where}.content[{index}]", part) for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(str(part["text"]) for part in parts)
    return parts


def _part(where: str, part: object) -> Message:
    """A part of a message: ``{"type": "text", "text": ...}``, or an image with whatever says where it is under ``image``."""
    if isinstance(part, Mapping):
        if part.get("type") in IMAGE_PARTS:
            place = {str(key): value for key, value in part.items() if key != "type" and value is not None}
            return {"type": "image", "image": place or None}
        if isinstance(part.get("text"), str):
            return {"type": "text", "text": part["text"]}
    raise data_error(f"{where} must be a part with text, or one of type {', '.join(IMAGE_PARTS)}, found {show(part)}")


def _calls(where: str, content: object) -> list[object]:
    """Calls written as text: one JSON object with name and arguments, or a list of them."""
    calls = structured(content)
    found = calls if isinstance(calls, list) else [calls]
    if not found or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in found):
        raise data_error(f'{where} must be the JSON of a call, {{"name": "...", "arguments": {{...}}}}, found {show(content)}')
    return [{"type": "function", "function": dict(call)} for call in found if isinstance(call, Mapping)]


def _tool_calls(where: str, message: Message) -> list[object]:
    calls = structured(message["tool_calls"])
    if not isinstance(calls, list):
        raise data_error(f"{where}.tool_calls must be a list of calls, found {show(calls)}")
    return calls


def _call(where: str, call: object) -> Message:
    """A call whose arguments are an object, as chat templates want them; OpenAI writes their JSON text, which would be escaped twice."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise data_error(f"{where} must be an object with function.name and function.arguments, found {show(call)}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            raise data_error(f"{where}.function.arguments must be an object or its JSON text ({error.msg})") from error
    rest = {str(key): value for key, value in call.items() if key in ("id", "type") and value is not None}
    return {"type": "function", **rest, "function": {"name": function["name"], "arguments": {} if arguments is None else arguments}}


def _flagged(where: str, message: Message) -> Message:
    """Replace the keys that say whether a message is trained by one."""
    for key in LOSS_KEYS:
        if key in message:
            flag = message.pop(key)
            if flag not in (0, 1):
                raise data_error(f"{where}.{key} must be true or false (or 1 or 0), found {show(flag)}")
            message[LOSS] = bool(flag)
    return message
