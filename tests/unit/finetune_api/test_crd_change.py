"""From the version before to this one: whatever was stored or written under v1alpha1 is still accepted, and nothing of it is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import gt, lt
from pathlib import Path
from typing import Any

import pytest

from finetune_api.documents import load_documents, validate_document
from tests.support.install import unpack_previous
from tests.support.manifests import ROOT, accepted

Schema = Mapping[str, Any]

LOWEST = ("minimum", "minLength", "minItems", "minProperties")
HIGHEST = ("maximum", "maxLength", "maxItems", "maxProperties")
FIXED = ("type", "format", "pattern", "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")
"""What may not change at all: whether another one takes less cannot be told."""
EXCEPTIONS: Mapping[str, str] = {
    r"pattern ^(hf|s3|gs|pvc|https)://[^\s]+$ is ^((hf|s3|gs|pvc|https)://|ref:)[^\s]+$": "takes the name of a BaseModel as well",
    r"pattern ^(hf|s3|gs|pvc|https|configmap)://[^\s]+$ is ^((hf|s3|gs|pvc|https|configmap)://|ref:)[^\s]+$": "and that of a Dataset",
}
"""End of what is found -> why it is meant, or takes nothing away."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the version before."""
    folder = tmp_path_factory.mktemp("previous")
    if unpack_previous(folder) is None:
        pytest.skip("this clone has no history: fetch it, or name a commit in FINETUNE_PREVIOUS")
    return folder


def test_no_crd_takes_less_than_before(previous: Path) -> None:
    """Kubernetes API conventions: within a version nothing is removed, retyped, narrowed or newly required; a status only gains."""
    found = [
        each
        for file in sorted((previous / "crds").glob("*.yaml"))
        for each in narrowings(schemas(file), schemas(ROOT / "crds" / file.name), file.name.partition(".")[0])
    ]
    unexplained = [each for each in found if not each.endswith(tuple(EXCEPTIONS))]
    assert not unexplained, "\n".join(unexplained)


def test_jobs_written_for_the_version_before_are_accepted(previous: Path) -> None:
    documents = accepted(sorted((previous / "tests/data/jobs/valid").glob("*.yaml")))
    assert documents
    for case in documents:
        validate_document(case.document)


def schemas(file: Path) -> Schema:
    """The schemas of a CRD's versions, as properties of an object."""
    (crd,) = load_documents(file.read_text(encoding="utf-8"))
    return {"properties": {version["name"]: version["schema"]["openAPIV3Schema"] for version in crd["spec"]["versions"]}}


def narrowings(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """What the new schema takes away from the old one."""
    yield from (f"{path}: {key} {old.get(key)} is {new.get(key)}" for key in FIXED if old.get(key) != new.get(key))
    yield from (f"{path}: {key} {old.get(key)} is {new[key]}" for key in LOWEST if key in new and narrower(new[key], old.get(key), gt))
    yield from (f"{path}: {key} {old.get(key)} is {new[key]}" for key in HIGHEST if key in new and narrower(new[key], old.get(key), lt))
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        bound = key.removeprefix("exclusive").lower()
        if new.get(key) and not old.get(key) and old.get(bound) == new.get(bound):
            yield f"{path}: {key} is new"
    if "enum" in new and not set(old.get("enum", ["anything"])) <= set(new["enum"]):
        yield f"{path}: enum {old.get('enum')} is {new['enum']}"
    if old.get("nullable") and not new.get("nullable"):
        yield f"{path}: null is refused"
    yield from (f"{path}.{name}: required" for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))))
    yield from children(old, new, path)


def narrower(new: float, old: float | None, beyond: Any) -> bool:
    """Whether a bound is new or lies further in than before."""
    return old is None or beyond(new, old)


def children(old: Schema, new: Schema, path: str) -> Iterator[str]:
    """The same for properties and items."""
    for name, before in old.get("properties", {}).items():
        after = new.get("properties", {}).get(name)
        if after is None:
            yield f"{path}.{name}: removed"
        else:
            yield from narrowings(before, after, f"{path}.{name}")
    for key, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(old.get(key), Mapping):
            yield from narrowings(old[key], new.get(key) or {}, f"{path}{sign}")


OLD: Schema = {
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "integer", "minimum": 0, "maximum": 9},
        "b": {"type": "string", "enum": ["x", "y"], "maxLength": 5},
        "c": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "d": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        ("a", {"type": "string", "minimum": 0, "maximum": 9}, "job.a: type integer is string"),
        ("a", {"type": "integer", "minimum": 1, "maximum": 9}, "job.a: minimum 0 is 1"),
        ("a", {"type": "integer", "minimum": 0, "maximum": 8}, "job.a: maximum 9 is 8"),
        ("a", {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9}, "job.a: exclusiveMinimum is new"),
        ("b", {"type": "string", "enum": ["x", "z"], "maxLength": 5}, "job.b: enum ['x', 'y'] is ['x', 'z']"),
        ("b", {"type": "string", "enum": ["x", "y"], "maxLength": 5, "minLength": 1}, "job.b: minLength None is 1"),
        ("b", {"type": "string", "enum": ["x", "y"], "maxLength": 5, "pattern": "x"}, "job.b: pattern None is x"),
        ("c", {"type": "array", "items": {"type": "number", "minimum": 1}}, "job.c[]: minimum 0 is 1"),
        ("c", {"type": "array", "items": {"type": "number"}, "maxItems": 2}, "job.c: maxItems None is 2"),
        ("d", {"type": "object", "additionalProperties": {"type": "integer"}}, "job.d{}: type string is integer"),
        ("d", {"type": "object", "additionalProperties": {"type": "string"}, "required": ["e"]}, "job.d.e: required"),
        ("d", None, "job.d: removed"),
    ],
)
def test_what_is_a_narrowing(path: str, change: Schema | None, expected: str) -> None:
    properties = {name: schema for name, schema in {**OLD["properties"], path: change}.items() if schema is not None}
    assert list(narrowings(OLD, {**OLD, "properties": properties}, "job")) == [expected]


def test_what_is_none() -> None:
    wider = {
        "a": {"type": "integer", "minimum": -1},
        "b": {"type": "string", "maxLength": 6},
        "c": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "d": {"type": "object", "additionalProperties": {"type": "string"}},
        "e": {"type": "string", "enum": ["new"]},
    }
    assert list(narrowings(OLD, {**OLD, "required": [], "properties": wider}, "job")) == []
