"""From pydantic's JSON schema to what the API server takes: structural OpenAPI v3.

The API server refuses ``$ref``, ``anyOf`` with null, ``const``, numeric ``exclusiveMinimum`` and more, and can tell the cost of a rule only
where every list, map and text has a bound: :func:`structural` converts the first and refuses what lacks the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from finetune_api import cel
from finetune_api.placement import place
from finetune_api.rules import RULES, Rule

JSON = dict[str, Any]

DROPPED = frozenset({"title", "additionalProperties", "propertyNames", "examples", "deprecated"})
"""Keys with no place in a structural schema, or dealt with by name below."""
KEPT = (
    *("description", "type", "format", "default", "enum", "pattern", "minimum", "maximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
)
"""Keys taken over as they are, in the order they are written."""
Describe = Callable[[str, Mapping[str, Any]], str]
"""Path and JSON schema of a field -> its description."""


class SchemaError(ValueError):
    """A model that has no structural schema; names the field and what it lacks."""


def structural(model: type[BaseModel], describe: Describe) -> JSON:
    """Structural OpenAPI v3 schema of ``model``, by its names on the wire.

    Of defaults only those marked ``x-schema-default`` are written. Raises :class:`SchemaError` for what the API server could not take.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(document.get("$defs", {}), describe).convert(document, "")


class _Converter(NamedTuple):
    definitions: Mapping[str, Any]
    describe: Describe

    def convert(self, raw: Mapping[str, Any], path: str) -> JSON:
        """The structural form of one node and all below it."""
        node = follow(raw, self.definitions, path)
        unknown = [key for key in node if key not in KEPT and key not in DROPPED and not key.startswith("x-")]
        if unknown:
            raise SchemaError(f"{path or 'root'}: {', '.join(sorted(unknown))} has no structural form")
        schema: JSON = {key: value for key, value in node.items() if key in KEPT and key != "default"}
        schema["description"] = self.describe(path, node)
        if "properties" in node:
            prefix = f"{path}." if path else ""
            schema["properties"] = {name: self.convert(child, f"{prefix}{name}") for name, child in node["properties"].items()}
        elif isinstance(node.get("additionalProperties"), Mapping):
            schema |= self._map(node, path)
        if "items" in node:
            schema["items"] = self.convert(node["items"], f"{path}[]")
            schema.setdefault("x-kubernetes-list-type", "atomic")
        _judge_fractions(schema)
        _set_default(schema, node)
        _refuse_unbounded(schema, path)
        return {key: schema[key] for key in sorted(schema, key=_order) if schema[key] != ""}

    def _map(self, node: Mapping[str, Any], path: str) -> JSON:
        """A map: OpenAPI v3 cannot bound its keys, so that a rule does."""
        schema: JSON = {"additionalProperties": self.convert(node["additionalProperties"], f"{path}.*")}
        keys = node.get("propertyNames", {})
        bounds = [f"key.size() {sign} {keys[name]}" for name, sign in (("minLength", ">="), ("maxLength", "<=")) if name in keys]
        if bounds:
            message = f"keys must have {keys.get('minLength', 0)} to {keys['maxLength']} characters"
            schema["x-kubernetes-validations"] = [{"rule": f"self.all(key, {cel.all_of(*bounds)})", "message": message}]
        return schema


def follow(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> JSON:
    """One plain node: references followed, ``X | None`` and constants reduced. What stands beside a reference wins over it."""
    merged: JSON = dict(node)
    while True:
        if "$ref" in merged:
            reference = merged.pop("$ref").rpartition("/")[2]
            merged = {**definitions[reference], **merged}
        elif "anyOf" in merged:
            choices = [choice for choice in merged.pop("anyOf") if choice.get("type") != "null"]
            if len(choices) != 1:
                raise SchemaError(f"{path}: a choice of types has no structural form")
            merged = {**choices[0], **merged}
        elif "const" in merged:
            merged["enum"] = [merged.pop("const")]
        else:
            merged.pop("$defs", None)
            return merged


def _judge_fractions(schema: JSON) -> None:
    """A rule beside a minimum that is no whole number: the API server drops the fraction of the bound when it judges a value such as 0.

    Seen on Kubernetes 1.36: ``minimum: 0.01`` takes ``0`` (kube-openapi compares a whole number with the bound as a whole number).
    """
    minimum = schema.get("minimum")
    if isinstance(minimum, float) and not minimum.is_integer():
        bound = f"{minimum:.10f}".rstrip("0")
        schema["x-kubernetes-validations"] = [{"rule": f"self >= {bound}", "message": f"must be at least {bound}"}]


def _set_default(schema: JSON, node: Mapping[str, Any]) -> None:
    if "x-schema-default" in node:
        schema["default"] = node["x-schema-default"]
    elif not schema.get("required") and any("default" in child for child in schema.get("properties", {}).values()):
        schema["default"] = {}


_BOUND_BY_TYPE = {"string": "maxLength", "array": "maxItems"}


def _refuse_unbounded(schema: Mapping[str, Any], path: str) -> None:
    bound = _BOUND_BY_TYPE.get(schema.get("type", ""))
    if "additionalProperties" in schema:
        bound = "maxProperties"
    if bound and bound not in schema and "enum" not in schema:
        raise SchemaError(f"{path}: needs {bound}; the API server cannot tell the cost of rules over it")
    if "type" not in schema:
        raise SchemaError(f"{path}: has no type")


def attach_rules(schema: JSON, rules: tuple[Rule, ...] = RULES, *, preset: bool) -> None:
    """Put the rules between fields into the schema of a spec, each where :func:`finetune_api.placement.place` says.

    An empty spec keeps every rule, so that none is lost where its field is absent.
    """
    for rule in rules:
        if preset and rule.job_only:
            continue
        expression = rule.preset_expression() if preset else rule.job_expression()
        at, expression = place(expression, rule.path)
        node = schema
        for step in at:
            node = node["properties"][step]
        below = rule.path.split(".")[len(at) :]
        where = {"fieldPath": f".{'.'.join(below)}"} if below else {}
        node.setdefault("x-kubernetes-validations", []).append({**where, "message": rule.message, "rule": expression})


def _order(key: str) -> tuple[int, str]:
    return (KEPT.index(key) if key in KEPT else len(KEPT), key)
