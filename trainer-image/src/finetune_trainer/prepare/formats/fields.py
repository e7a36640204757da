"""Fields of a raw row, with complaints that name file, line, field, what was found and what was expected."""

from __future__ import annotations

import json
from collections.abc import Sequence

from finetune_trainer.prepare.rows import Row, data_error


def column(row: Row, name: str, wanted_by: str) -> object:
    """Value of a column that must be there. ``wanted_by`` is the field of the spec that asks for it."""
    if name not in row.fields:
        raise data_error(f"{row.where}: there is no column {name!r} ({wanted_by}); the columns are {names(row)}")
    return row.fields[name]


def text(row: Row, name: str, wanted_by: str) -> str:
    """A column that must be a text."""
    value = column(row, name, wanted_by)
    if not isinstance(value, str):
        raise data_error(f"{row.where}: {name} must be a text, found {show(value)}")
    return value


def optional_text(row: Row, *aliases: str) -> str:
    """The first of some columns that is there and not null; empty when none is."""
    for name in aliases:
        value = row.fields.get(name)
        if value is not None:
            return text(row, name, name)
    return ""


def structured(value: object) -> object:
    """A value that may be written as JSON text, which is all CSV has for lists and objects; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def is_structure(value: object) -> bool:
    """Whether a value is a list or an object, or the JSON text of one."""
    return isinstance(structured(value), list | dict)


def tools(row: Row) -> Sequence[object] | None:
    """Tools of a row: a list, or its JSON text."""
    value = row.fields.get("tools")
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise data_error(f"{row.where}: tools must be a list or its JSON text ({error.msg})") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise data_error(f"{row.where}: tools must be a list or its JSON text, found {show(value)}")
    return value or None


def show(value: object) -> str:
    """A value for a message, bounded."""
    return json.dumps(value, default=str, ensure_ascii=False)[:80]


def names(row: Row) -> str:
    """Names of the columns, for a message."""
    return ", ".join(map(str, row.fields)) or "none"
