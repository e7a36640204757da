"""The fullest status there can be is shortened, and nothing a decision remembers is lost by that."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.defaults import BASE, SCHEMA
from finetune_api.describe import describe_meaning
from finetune_api.models.status import FineTuneJobStatus
from finetune_api.resolve import resolve
from finetune_api.rules.base_model import DEFAULTABLE
from finetune_api.schema import structural
from finetune_operator.plan.document import fit_status, status_document, weight
from finetune_operator.plan.merge import OWN_CONDITIONS
from finetune_operator.plan.specs import resolved_values
from tests.unit.finetune_operator.test_status_size import FACTS

OUTPUT = f"s3://finetune-{'b' * 54}/{'n' * 40}/{'j' * 50}/d75d126b-8ed6-43e1-8611-6638ff6c2d84"
"""A bucket's, and a job's, name of the greatest length, in a namespace of forty letters."""
SENTENCES = ("message", "lastLogLines", "advice", "value")
WARNINGS = ("ForeignCheckpoint", "OutsideRecommended", "QuantizationDecided", "SettingIgnored", "CheckpointSlowerThanNotice", "RowsSkipped")
SPOKEN = {
    "CheckpointReady": 120,
    "Exported": 200,
    "Failed": 1024,
    "OutsideRecommended": 400,
    "QuantizationDecided": 200,
    "RowsSkipped": 200,
}
"""Conditions with more than a word, beside the eight that every job has, and how long they get."""
ALWAYS = ("Valid", "Ready", "Reconciling", "Stalled", "Suspended", "Succeeded", "Failed", "Admitted")
EXCLUSIVE = {"failed": ("artifacts", "export"), "exported": ("failure", "hold")}
"""What a job cannot have beside the rest."""
DEFAULTS = {
    path: entry.model_dump()
    for path, entry in resolved_values(resolve({"model": {"uri": "hf://a/b"}, "dataset": {"uri": "hf://c/d"}})).items()
}
LEAVES = sorted(path for path in BASE if path not in SCHEMA)


def fullest(schema: dict[str, Any], name: str = "") -> Any:
    """A value of the schema: every list as long and every text as large as it may be."""
    kind = schema["type"]
    if kind == "object" and "properties" in schema:
        return {key: fullest(child, key) for key, child in schema["properties"].items()}
    if kind == "object":
        return {f"{name}{number}": fullest(schema["additionalProperties"]) for number in range(schema["maxProperties"])}
    if kind == "array":
        return [fullest(schema["items"], name) for _ in range(schema["maxItems"])]
    if kind in ("integer", "number", "boolean"):
        return {"integer": 123_456_789, "number": 123_456.789, "boolean": False}[kind]
    return max(map(str, schema["enum"]), key=len) if "enum" in schema else text(schema, name)


def text(schema: dict[str, Any], name: str) -> str:
    """Sentences and values at their cap; identifiers as long as they get."""
    if schema.get("format") == "date-time":
        return "2026-11-21T10:29:40Z"
    identifiers = {
        "uri": f"{OUTPUT}/a999/checkpoint-999999",
        "digest": "f" * 64,
        "dashboardURL": f"https://grafana.example/{'q' * 120}",
    }
    if name in identifiers or name.lower().endswith("uri"):
        return identifiers.get(name) or OUTPUT
    return "x" * int(schema["maxLength"] if name in SENTENCES else min(24, schema["maxLength"]))


def full(case: str) -> dict[str, Any]:
    """A status with everything in it at once, or everything a job with default values can have after a failure or an export."""
    whole: dict[str, Any] = fullest(structural(FineTuneJobStatus, describe_meaning))
    condition, is_all = whole["conditions"][0], case == "impossible"
    messages = dict.fromkeys([*OWN_CONDITIONS, *WARNINGS], 1024) if is_all else {**dict.fromkeys(ALWAYS, 60), **SPOKEN}
    return {
        **{key: value for key, value in whole.items() if key not in EXCLUSIVE.get(case, ())},
        "conditions": [{**condition, "type": kind, "message": "x" * length} for kind, length in sorted(messages.items())],
        "resolved": {path: {"value": "v" * 256, **decided(path)} for path in LEAVES} if is_all else DEFAULTS,
        "facts": dict.fromkeys(FACTS, "f" * 256) if is_all else FACTS,
        "progress": {**whole["progress"], "report": "r" * 200},
    }


def decided(path: str) -> dict[str, str]:
    """Who decided on a field: where it may, a BaseModel of the longest name."""
    return {"source": "model", "name": "n" * 253} if path in DEFAULTABLE else {"source": "preset"}


def fitted(whole: dict[str, Any]) -> dict[str, Any]:
    """What is stored of it."""
    return {**status_document(fit_status(FineTuneJobStatus.model_validate(whole), whole["progress"])), "progress": whole["progress"]}


@pytest.mark.parametrize(("case", "most"), [("failed", 13_312), ("exported", 13_824), ("impossible", 22_528)])
def test_the_fullest_status_is_shortened(case: str, most: int) -> None:
    """Design §3: at most 8 KB in use (test_status_size); with every list full and every name at its longest it stays below these bounds."""
    whole = full(case)
    stored = fitted(whole)
    assert weight({**status_document(FineTuneJobStatus.model_validate(whole)), "progress": whole["progress"]}) > most
    assert weight(stored) <= most
    assert set(stored["resolved"]) == set(whole["resolved"])
    assert [each["type"] for each in stored["conditions"]] == [each["type"] for each in whole["conditions"]]
    assert len(stored.get("artifacts", {}).get("outputs", [])) == len(whole.get("artifacts", {}).get("outputs", []))
