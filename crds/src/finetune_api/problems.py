"""What is wrong with a document, in plain language: the field, the value, the rule and the fix."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_api.models.base import NAME_PATTERN, QUANTITY_PATTERN, ApiModel, nested_model
from finetune_api.models.gpu_type import CAPABILITY_PATTERN, CURRENCY_PATTERN, RATE_PATTERN, RESOURCE_PATTERN
from finetune_api.models.sources import (
    CONFIG_PATTERN,
    DATA_OR_REF_PATTERN,
    DATA_PATTERN,
    MODEL_OR_REF_PATTERN,
    MODEL_PATTERN,
    RESUME_PATTERN,
    STORE_PATTERN,
)

MAX_VALUE = 80
"""Characters of a value that a message repeats."""


class Problem(NamedTuple):
    """One thing to mend."""

    path: str
    """Where: ``spec.training.batchSize``."""
    value: object
    """What stands there; None where nothing does."""
    message: str
    """What is wrong and how to mend it, without the path."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class SpecError(ValueError):
    """A document that cannot be accepted. ``problems`` has all that is wrong, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def problems_of(error: ValidationError, model: type[ApiModel], root: str) -> list[Problem]:
    """Every error of a validation of ``model``, said plainly. ``root`` is the path of the model's object (``spec``)."""
    return [_problem(details, model, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, model: type[ApiModel], root: str) -> Problem:
    loc = [part for part in details["loc"] if part != "[key]"]
    path = root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    missing = details["type"] == "missing"
    return Problem(path, None if missing else details["input"], _sentence(details, model, loc))


def _sentence(details: ErrorDetails, model: type[ApiModel], loc: Sequence[str | int]) -> str:
    value, context = show(details["input"]), details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return "unknown field" + _suggest_field(str(loc[-1]), model, loc[:-1])
        case "missing":
            return "is required" + _purpose(model, loc)
        case "greater_than_equal":
            return f"{value} is below the minimum {context['ge']}"
        case "less_than_equal":
            return f"{value} is above the maximum {context['le']}"
        case "multiple_of":
            return f"{value} is not a multiple of {context['multiple_of']}{_nearest(details['input'], context['multiple_of'])}"
        case "literal_error" | "enum":
            return f"{value} is none of {_plain(context['expected'])}{_suggest_value(details['input'], context['expected'])}"
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return f"{value} should be {_PATTERNS.get(pattern, f'of the form {pattern}')}"
        case "string_too_short" | "too_short":
            return f"{value} is shorter than the minimum {context['min_length']}"
        case "string_too_long" | "too_long":
            return f"{value} is longer than the maximum {context['max_length']}"
        case kind:
            return f"{value} should be {_KINDS.get(kind, details['msg'])}"


_PATTERNS = {
    NAME_PATTERN: "the name of an object: lower case letters, digits, - and .",
    QUANTITY_PATTERN: "a quantity such as 500m, 4 or 16Gi",
    MODEL_PATTERN: "an address: hf://org/name@revision, s3://bucket/path, gs://bucket/path, pvc://claim/path or https://host/file.tar",
    MODEL_OR_REF_PATTERN: "an address: hf://org/name@revision, s3://bucket/path, gs://bucket/path, pvc://claim/path or "
    "https://host/file.tar; or ref:name, a BaseModel",
    DATA_PATTERN: "an address: hf://org/name@revision, s3://bucket/key, gs://bucket/key, pvc://claim/path, https://host/path "
    "or configmap://name/key",
    DATA_OR_REF_PATTERN: "an address: hf://org/name@revision, s3://bucket/key, gs://bucket/key, pvc://claim/path, https://host/path "
    "or configmap://name/key; or ref:name, a Dataset",
    CONFIG_PATTERN: "an address: s3://bucket/key, gs://bucket/key, pvc://claim/path, https://host/path or configmap://name/key",
    STORE_PATTERN: "a prefix in a store: s3://bucket/prefix or gs://bucket/prefix",
    CAPABILITY_PATTERN: 'a compute capability such as "9.0"',
    CURRENCY_PATTERN: "a currency of three capital letters, such as USD",
    RATE_PATTERN: 'a price such as "2.50": a decimal number with at most 6 digits on either side',
    RESOURCE_PATTERN: "a resource of nodes such as nvidia.com/gpu",
    RESUME_PATTERN: "latest, none, checkpoint-<step> or the address of a checkpoint directory (s3://, gs://, pvc://)",
}
_KINDS = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a text (in quotes where YAML would read it as something else)",
}


def show(value: object) -> str:
    """A value as it is written in YAML flow style, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."


def _plain(expected: str) -> str:
    return expected.replace("'", "").replace(" or ", ", ")


def _suggest_value(value: object, expected: str) -> str:
    close = difflib.get_close_matches(str(value), _plain(expected).split(", "), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _nearest(value: Any, step: int) -> str:
    below = value // step * step
    return f"; the nearest are {below} and {below + step}"


def _purpose(model: type[ApiModel], loc: Sequence[str | int]) -> str:
    parent = _model_at(model, loc[:-1])
    for info in parent.model_fields.values() if parent else ():
        if info.alias == loc[-1] and info.description:
            return f": {' '.join(info.description.split())}"
    return ""


def _suggest_field(name: str, model: type[ApiModel], loc: Sequence[str | int]) -> str:
    parent = _model_at(model, loc)
    here = [str(info.alias) for info in parent.model_fields.values()] if parent else []
    if close := difflib.get_close_matches(name, here, n=1, cutoff=0.7):
        return f"; did you mean {close[0]}?"
    elsewhere: dict[str, str] = {}
    for path in _paths(model):
        elsewhere.setdefault(path.rpartition(".")[2], path)
    if close := difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.85):
        return f"; did you mean spec.{elsewhere[close[0]]}?"
    return f"; known here: {', '.join(here)}" if here else ""


def _model_at(model: type[ApiModel], loc: Sequence[str | int]) -> type[ApiModel] | None:
    for part in loc:
        if isinstance(part, int):
            continue
        nested = next((nested_model(info.annotation) for info in model.model_fields.values() if info.alias == part), None)
        if nested is None:
            return None
        model = nested
    return model


def _paths(model: type[ApiModel], prefix: str = "") -> Iterable[str]:
    for info in model.model_fields.values():
        nested = nested_model(info.annotation)
        yield f"{prefix}{info.alias}"
        if nested is not None:
            yield from _paths(nested, f"{prefix}{info.alias}.")
