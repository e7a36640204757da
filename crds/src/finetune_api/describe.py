"""What ``kubectl explain`` and the reference say of a field: meaning, unit, range, default, recommendation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune_api.auto import AUTO, TUNED
from finetune_api.defaults import ADAPTER, BACKEND, BASE, METHOD, SCHEMA
from finetune_api.presets import SHIPPED
from finetune_api.resolve import flatten


def describe_meaning(_path: str, node: Mapping[str, Any]) -> str:
    """The docstring alone, on one line: for fields that nobody sets."""
    return " ".join(str(node.get("description", "")).split())


def describe_range(path: str, node: Mapping[str, Any]) -> str:
    """The docstring, unit and range: for objects whose defaults are their schema's."""
    known = {"Unit": node.get("x-unit", ""), "Range": value_range(node)}
    return " ".join([describe_meaning(path, node), *(f"{label}: {text}." for label, text in known.items() if text)])


def describe(path: str, node: Mapping[str, Any]) -> str:
    """The full description of the field at ``path`` with its JSON schema ``node``."""
    meaning = describe_meaning(path, node)
    tier = node.get("x-tier")
    is_leaf = "properties" not in node
    parts = [f"[{tier}]" if tier and is_leaf else "", meaning, *(f"{label}: {text}." for label, text in facts(path, node).items() if text)]
    return " ".join(part for part in parts if part)


def facts(path: str, node: Mapping[str, Any]) -> dict[str, str]:
    """Unit, range, default and recommendation of a field, '' where there is none."""
    return {
        "Unit": str(node.get("x-unit", "")),
        "Range": value_range(node),
        "Default": default_text(path),
        "Recommended": str(node.get("x-recommended", "")),
    }


def value_range(node: Mapping[str, Any]) -> str:
    """``1 to 128``, ``0 to 1048576 in steps of 8``, ``1 to 64 items``; '' for texts and choices."""
    if "maximum" in node:
        step = f" in steps of {node['multipleOf']}" if "multipleOf" in node else ""
        return f"{plain(node.get('minimum', 'any'))} to {plain(node['maximum'])}{step}"
    if "maxItems" in node:
        return f"{node.get('minItems', 0)} to {node['maxItems']} items"
    if "maxProperties" in node:
        return f"{node.get('minProperties', 0)} to {node['maxProperties']} entries"
    return ""


def default_text(path: str) -> str:
    """``2; 4 in lora-chat, 1 in quick-test``; '' where the table has nothing."""
    table = {**SCHEMA, **BASE}
    if path not in table or table[path] in ({}, None):
        return ""
    base = plain(table[path])
    tables = {"method": METHOD, "adapter.type": ADAPTER, "backend": BACKEND}
    layers = [(f"{kind} {name}", layer) for kind, table in tables.items() for name, layer in table.items()]
    others = [f"{plain(layer[path])} with {choice}" for choice, layer in layers if path in layer]
    for name, preset in SHIPPED.items():
        own = flatten(preset.spec).get(path)
        if own is not None and plain(own) != base:
            others.append(f"{plain(own)} in {name}")
    others += [f"{TUNED[path]} in {AUTO}"] if path in TUNED else []
    return f"{base}; {', '.join(others)}" if others else base


def plain(value: object) -> str:
    """A value for people: true, 0.0002, q_proj q_proj, none for an empty list."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return format(value, "g")
        case list() | tuple():
            return ", ".join(plain(item) for item in value) or "none"
        case _:
            return json.dumps(value)
