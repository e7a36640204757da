"""Where the images of a row stand in its conversation: parts of messages, marks in texts, or a column beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from finetune_trainer.prepare.formats.fields import structured
from finetune_trainer.prepare.formats.turns import Message
from finetune_trainer.prepare.images import Folder, Images
from finetune_trainer.prepare.rows import Row, data_error

COLUMNS: Final = ("images", "image")
"""Columns with the images of a row, of LLaMA-Factory, ms-swift, TRL and LLaVA: a list, or one."""
MARK: Final = "<image>"
"""Stands in a text where an image of the column goes."""
TURNS: Final = ("messages", "prompt", "completion", "chosen", "rejected")
"""Fields of canonical rows that may hold messages."""


def refuse_images(row: Row) -> Row:
    """Return the row, or raise :class:`TrainerError` (DataError) for one that shows an image to a model that learns from texts alone."""
    for field in TURNS:
        for index, message in enumerate(_turns(row.fields.get(field))):
            if isinstance(message.get("content"), list):
                raise data_error(
                    f"{row.where}: {field}[{index}].content has an image; images are for method sft and a vision-language model"
                )
    return row


def attach_images(raw: Row, row: Row, images: Images, folder: Folder) -> Row:
    """Replace each image of a canonical row by the number it is known by: ``{"type": "image", "image": 3}``.

    ``raw`` is the row as it was found, whose column may hold the images. Raises :class:`TrainerError` (DataError) where images and places
    for them are not equally many, and for images that cannot be used.
    """
    name = next((name for name in COLUMNS if raw.fields.get(name)), COLUMNS[0])
    given = _given(raw, name)
    fields = {field: _opened(value, marked=bool(given)) for field, value in row.fields.items() if field in TURNS and _turns(value)}
    if given and not fields:
        raise data_error(f"{row.where}: {name} has images, and the row is a text without turns; write it as messages")
    places = sum(_is_open(part) for turns in fields.values() for message in turns for part in _parts(message))
    if given and not places:
        places = _put_first(fields, len(given))
    if places != len(given):
        raise data_error(
            f"{row.where}: {name} has {len(given)} images, and the messages have places for {places} ({MARK}, or parts of type image)"
        )
    attaching = _Attaching(row.where, iter([(f"{name}[{index}]", image) for index, image in enumerate(given)]), images, folder)
    return Row(row.where, {**row.fields, **{field: attaching.turns(field, turns) for field, turns in fields.items()}})


@dataclass(frozen=True)
class _Attaching:
    """The images of one row under way."""

    where: str
    given: Iterator[tuple[str, object]]
    """Name and value of each image of the column."""
    images: Images
    folder: Folder

    def turns(self, field: str, turns: Sequence[Message]) -> list[Message]:
        """Messages with numbers for images."""
        return [self._message(f"{field}[{index}]", message) for index, message in enumerate(turns)]

    def _message(self, place: str, message: Message) -> Message:
        if not isinstance(message.get("content"), list):
            return message
        parts = [self._part(f"{place}.content[{index}]", part) for index, part in enumerate(_parts(message))]
        return {**message, "content": parts}

    def _part(self, place: str, part: Message) -> Message:
        if part["type"] != "image":
            return part
        place, reference = next(self.given) if _is_open(part) else (place, part["image"])
        return {"type": "image", "image": self.images.take(f"{self.where}: {place}", reference, self.folder)}


def _given(row: Row, name: str) -> Sequence[object]:
    value = structured(row.fields.get(name))
    if not value:
        return []
    return value if isinstance(value, list) else [value]


def _turns(value: object) -> list[Message]:
    return value if isinstance(value, list) else []


def _opened(value: object, *, marked: bool) -> list[Message]:
    """Messages with the marks in their texts as parts of their own."""
    return [_with_places(message) if marked else message for message in _turns(value)]


def _with_places(message: Message) -> Message:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else _parts(message)
    if not any(MARK in str(part.get("text", "")) for part in parts):
        return message
    return {**message, "content": [piece for part in parts for piece in _pieces(part)]}


def _pieces(part: Mapping[str, object]) -> Iterator[Message]:
    if part["type"] != "text":
        yield dict(part)
        return
    for index, text in enumerate(str(part["text"]).split(MARK)):
        if index:
            yield {"type": "image", "image": None}
        if text:
            yield {"type": "text", "text": text}


def _parts(message: Message) -> list[Message]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_open(part: Mapping[str, object]) -> bool:
    """Whether a part is a place for an image that the column holds."""
    return part["type"] == "image" and part["image"] is None


def _put_first(fields: Mapping[str, list[Message]], count: int) -> int:
    """Put images before the first question, as TRL and ms-swift do where a row does not say where they stand; returns how many."""
    for turns in fields.values():
        for index, message in enumerate(turns):
            if message.get("role") == "user":
                parts = _parts(message) or [{"type": "text", "text": message.get("content", "")}]
                turns[index] = {**message, "content": [*({"type": "image", "image": None} for _ in range(count)), *parts]}
                return count
    return 0
