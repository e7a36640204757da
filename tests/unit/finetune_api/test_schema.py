"""Each conversion from pydantic's JSON schema to a structural one, and what cannot be converted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, StringConstraints, create_model

from finetune_api.crd import definitions
from finetune_api.describe import describe_meaning
from finetune_api.rules import RULES
from finetune_api.schema import JSON, SchemaError, structural

Short = Annotated[str, StringConstraints(max_length=8)]
FORBIDDEN = {"$ref", "$defs", "anyOf", "allOf", "oneOf", "const", "title", "exclusiveMinimum", "exclusiveMaximum", "prefixItems"}


class Colour(StrEnum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    """Something inside."""

    name: Short


def of(annotation: Any, default: Any = ..., **field: Any) -> JSON:
    """Structural schema of a single field."""
    model = create_model("Single", field=(annotation, Field(default, **field)))
    schema = structural(model, describe_meaning)["properties"]["field"]
    assert isinstance(schema, dict)
    return schema


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (Short, {"type": "string", "maxLength": 8}),
        (Literal["only"], {"type": "string", "enum": ["only"]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Colour, {"description": "A colour.", "type": "string", "enum": ["red", "blue"]}),
        (Literal["a"] | None, {"type": "string", "enum": ["a"]}),
        (int | None, {"type": "integer"}),
        (
            Inner | None,
            {
                "description": "Something inside.",
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "maxLength": 8}},
            },
        ),
    ],
)
def test_types(annotation: Any, expected: JSON) -> None:
    """No $ref, no anyOf with null, no const: an optional value is one that may be absent."""
    assert of(annotation) == expected


def test_bounds_of_numbers() -> None:
    assert of(int, ge=1, le=8, multiple_of=2) == {"type": "integer", "minimum": 1, "maximum": 8, "multipleOf": 2}


def test_lists_are_atomic_unless_said_otherwise() -> None:
    bounded = Annotated[list[Short], Field(max_length=3)]
    assert of(bounded) == {
        "type": "array",
        "maxItems": 3,
        "items": {"type": "string", "maxLength": 8},
        "x-kubernetes-list-type": "atomic",
    }
    keyed = of(bounded, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]})
    assert (keyed["x-kubernetes-list-type"], keyed["x-kubernetes-list-map-keys"]) == ("map", ["name"])


def test_keys_of_maps_are_bounded_by_a_rule() -> None:
    """OpenAPI v3 has no propertyNames."""
    schema = of(dict[Annotated[str, StringConstraints(min_length=1, max_length=5)], Short], max_length=4)
    assert schema["additionalProperties"] == {"type": "string", "maxLength": 8}
    assert schema["maxProperties"] == 4
    assert schema["x-kubernetes-validations"] == [
        {"rule": "self.all(key, key.size() >= 1 && key.size() <= 5)", "message": "keys must have 1 to 5 characters"}
    ]


def test_pydantic_defaults_are_not_written() -> None:
    """The API server would store them, and a stored default beats every preset."""
    assert "default" not in of(int, default=3)


def test_schema_defaults_are_written_with_an_empty_object_around_them() -> None:
    """Without the outer default the API server would not fill in the inner one."""
    inner = create_model("Inner", limit=(int, Field(3, json_schema_extra={"x-schema-default": 3})))
    outer = create_model("Outer", retry=(inner, Field()))
    schema = structural(outer, describe_meaning)["properties"]["retry"]
    assert (schema["default"], schema["properties"]["limit"]["default"]) == ({}, 3)


@pytest.mark.parametrize(
    ("annotation", "lacks"),
    [
        (str, "maxLength"),
        (list[int], "maxItems"),
        (dict[str, int], "maxProperties"),
        (Annotated[list[str], Field(max_length=2)], "maxLength"),
        (int | str, "a choice of types"),
        (Annotated[int, Field(gt=0)], "exclusiveMinimum"),
        (Any, "has no type"),
    ],
)
def test_what_the_api_server_could_not_take_is_refused_by_name(annotation: Any, lacks: str) -> None:
    with pytest.raises(SchemaError, match=rf"field.*{lacks}"):
        of(annotation)


@pytest.mark.parametrize("name", definitions())
def test_definitions_are_structural(name: str) -> None:
    foreign = {key for node in nodes(schema_of(name)) for key in node if key.startswith("x-") and not key.startswith("x-kubernetes-")}
    assert foreign | {key for node in nodes(schema_of(name)) for key in node if key in FORBIDDEN} == set()


def test_defaults_in_the_schema_are_those_no_preset_may_set() -> None:
    """Design: replicas, suspend, desiredState, pausePolicy, retry."""
    spec = schema_of("finetunejobs.finetune.dev")["properties"]["spec"]
    with_default = {name for name, node in spec["properties"].items() if "default" in node}
    assert with_default == {"replicas", "suspend", "desiredState", "pausePolicy", "retry"}
    assert "default" not in spec
    for name in ("finetunepresets.finetune.dev", "clusterfinetunepresets.finetune.dev"):
        assert [node for node in nodes(schema_of(name)) if "default" in node] == []


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_described(part: str) -> None:
    """F-33."""
    schema = schema_of("finetunejobs.finetune.dev")["properties"][part]
    undescribed = [name for parent in nodes(schema) for name, node in parent.get("properties", {}).items() if "description" not in node]
    assert undescribed == []


def test_every_rule_is_in_the_schema_once_and_says_its_field() -> None:
    spec = schema_of("finetunejobs.finetune.dev")["properties"]["spec"]
    found = [(f"{path}{rule.get('fieldPath', '')}", rule["message"]) for path, node in with_paths(spec) for rule in validations(node)]
    wanted = [(f".{rule.path}", rule.message) for rule in RULES]
    assert all(found.count(rule) == wanted.count(rule) for rule in wanted)


def test_rules_between_blocks_are_the_only_ones_on_the_spec() -> None:
    """The API server pays for each read of a field of the spec, for each job, at each write."""
    spec = schema_of("finetunejobs.finetune.dev")["properties"]["spec"]
    blocks = [set(re.findall(r"self\.\??([a-zA-Z]+)", rule["rule"])) for rule in validations(spec)]
    assert [read for read in blocks if len(read) < 2] == []


def validations(node: JSON) -> list[JSON]:
    """Rules of one schema."""
    return list(node.get("x-kubernetes-validations", ()))


def with_paths(schema: JSON, path: str = "") -> Iterator[tuple[str, JSON]]:
    """The schema and every schema below it, in objects."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from with_paths(child, f"{path}.{name}")


def schema_of(name: str) -> JSON:
    """Root schema of a definition."""
    schema = definitions()[name]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert isinstance(schema, dict)
    return schema


def nodes(schema: JSON) -> list[JSON]:
    """The schema and every schema below it."""
    below = [*schema.get("properties", {}).values(), *(schema[key] for key in ("items", "additionalProperties") if key in schema)]
    return [schema, *(node for child in below for node in nodes(child))]
