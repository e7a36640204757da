"""Who manages which fields of an object, and what server-side apply makes of it, as a kube-apiserver does for custom resources.

The rules are those of the CRD: which lists are atomic, sets or maps, which values have defaults. Fields are paths of ``f:name``,
``k:{...}`` and ``v:...``, as in ``metadata.managedFields``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path as File
from typing import Any, NamedTuple

import yaml

from finetune_api.constants import API_VERSION

ROOT = File(__file__).parents[2]
CRDS = {file.name.partition(".")[0]: file for file in (ROOT / "crds").glob("*.yaml")}
"""Plural -> its definition: the resources whose fields have managers here."""
Manifest = dict[str, Any]
Path = tuple[str, ...]
Schema = Mapping[str, Any]
BRANCH = object()
"""What stands for a map or a list item that has fields of its own."""
_FREE: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA: Schema = {
    "properties": {
        "labels": _FREE,
        "annotations": _FREE,
        "finalizers": {"items": {}, "x-kubernetes-list-type": "set"},
        "ownerReferences": {
            "items": {"x-kubernetes-map-type": "atomic"},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
    }
}
_MANAGED = ("labels", "annotations", "finalizers", "ownerReferences")
"""Of metadata; nobody manages the rest."""


class Manager(NamedTuple):
    """Who writes: a name, by which operation, on which subresource ('': none)."""

    name: str
    operation: str
    subresource: str = ""

    def __str__(self) -> str:
        """As a conflict calls it."""
        where = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'"{self.name}"{where}' + (f" using {API_VERSION}" if self.operation == "Update" else "")


Owners = dict[Manager, frozenset[Path]]
"""Never changed, only replaced."""


class ConflictsError(Exception):
    """Others manage fields that an apply would change."""

    def __init__(self, conflicts: Mapping[Manager, Iterable[Path]]) -> None:
        """The causes and the message of the API server's answer."""
        named = [(manager, sorted(map(text_of, paths))) for manager, paths in sorted(conflicts.items())]
        self.causes = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
            for manager, paths in named
            for path in paths
        ]
        if len(self.causes) == 1:
            told = f"1 conflict: {self.causes[0]['message']}: {self.causes[0]['field']}"
        else:
            lines = [line for manager, paths in named for line in (f"conflicts with {manager}:", *(f"- {path}" for path in paths))]
            told = f"{len(self.causes)} conflicts: " + "\n".join(lines)
        super().__init__(f"Apply failed with {told}")


@cache
def schema_of(plural: str) -> Schema:
    """Schema of a resource of ours, with the metadata that have managers."""
    definition = yaml.load(CRDS[plural].read_text(encoding="utf-8"), yaml.CSafeLoader)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return {**schema, "properties": {**schema["properties"], "metadata": METADATA}}


def with_defaults(value: Any, schema: Schema) -> Any:
    """A value with the schema's defaults, at all depths."""
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items") or {}) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties") or {}
    absent = {name: sub["default"] for name, sub in known.items() if "default" in sub and name not in value}
    return {name: with_defaults(part, known.get(name) or {}) for name, part in {**value, **absent}.items()}


def updated(owners: Owners, before: Manifest, after: Manifest, by: Manager, schema: Schema) -> Owners:
    """Owners after a write that is no apply: what it changed is the writer's alone."""
    old, new = _fields(before, schema, by), _fields(after, schema, by)
    gone = old.keys() - new.keys()
    changed = frozenset(path for path, value in new.items() if path not in old or old[path] != value)
    others = {manager: paths - changed - gone for manager, paths in owners.items() if manager != by}
    return _present({**others, by: owners.get(by, frozenset()) - gone | changed})


def applied(owners: Owners, live: Manifest, config: Manifest, by: Manager, schema: Schema, *, force: bool) -> tuple[Manifest, Owners]:
    """The object and its owners after an apply. Raises :class:`ConflictsError`."""
    mine = frozenset(path for path, value in _fields(config, schema, by).items() if value is not BRANCH or path[-1].startswith("k:"))
    now: Owners = {**owners, by: mine}
    kept = {path[:end] for paths in now.values() for path in paths for end in range(1, len(path) + 1)} | {("f:metadata",)}
    given_up = {path[:end] for path in owners.get(by, ()) for end in range(1, len(path) + 1)} - kept
    new = _merged(_copy(live), config, schema)
    for path in sorted(given_up):
        _remove(new, path)
    old_fields, new_fields = _fields(live, schema, by), _fields(new, schema, by)
    changed = frozenset(path for path, value in new_fields.items() if path not in old_fields or old_fields[path] != value)
    gone = old_fields.keys() - new_fields.keys()
    conflicts = {manager: paths & changed for manager, paths in owners.items() if manager != by and paths & changed}
    if conflicts and not force:
        raise ConflictsError(conflicts)
    others = {manager: paths - changed - gone for manager, paths in owners.items() if manager != by}
    return new, _present({**others, by: mine})


def managed_fields(owners: Owners) -> list[Manifest]:
    """``metadata.managedFields``, without times."""
    return [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": API_VERSION,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager, paths in sorted(owners.items())
    ]


def text_of(path: Path) -> str:
    """As a person writes it: ``.status.conditions[type="Ready"]``."""
    return "".join(_element(part) for part in path)


def _element(part: str) -> str:
    kind, _, rest = part.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "v":
        return f"[={rest}]"
    return "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in json.loads(rest).items()) + "]"


def _present(owners: Owners) -> Owners:
    return {manager: paths for manager, paths in owners.items() if paths}


def _tree(paths: Iterable[Path]) -> Manifest:
    root: Manifest = {}
    for path in sorted(paths):
        node = root
        for part in path:
            node = node.setdefault(part, {})
    return root


def _fields(manifest: Manifest, schema: Schema, by: Manager) -> dict[Path, Any]:
    """The fields a writer can have to do with: all but status, or status alone."""
    if by.subresource == "status":
        part: Manifest = {"status": manifest.get("status") or {}}
    else:
        part = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind", "metadata", "status")}
        metadata = {name: value for name, value in (manifest.get("metadata") or {}).items() if name in _MANAGED and value}
        part |= {"metadata": metadata} if metadata else {}
    return dict(_walk(part, schema, ()))


def _walk(value: Any, schema: Schema, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        if path:
            yield path, BRANCH
        known, other = _inside(schema)
        for name, part in value.items():
            yield from _walk(part, known.get(name, other), (*path, f"f:{name}"))
    elif isinstance(value, list) and schema.get("x-kubernetes-list-type") in ("map", "set"):
        for item in value:
            if schema["x-kubernetes-list-type"] == "set":
                yield (*path, "v:" + json.dumps(item)), item
            else:
                yield from _walk(item, schema["items"], (*path, _key(item, schema)))
    else:
        yield path, value


def _inside(schema: Schema) -> tuple[Mapping[str, Schema], Schema]:
    """Schemas of the fields that have names, and of all others."""
    return schema.get("properties") or {}, schema.get("additionalProperties") or {}


def _key(item: Manifest, schema: Schema) -> str:
    return "k:" + json.dumps({name: item[name] for name in schema["x-kubernetes-list-map-keys"]}, separators=(",", ":"))


def _merged(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(live, dict) and isinstance(config, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        known, other = _inside(schema)
        both = {name: _merged(live.get(name), part, known.get(name, other)) for name, part in config.items()}
        return {**live, **both}
    if isinstance(live, list) and isinstance(config, list) and (kind := schema.get("x-kubernetes-list-type")) in ("map", "set"):
        if kind == "set":
            return [*live, *(item for item in config if item not in live)]
        asked = {_key(item, schema): item for item in config}
        there = {_key(item, schema): item for item in live}
        return [_merged(there.get(key), asked.get(key, there.get(key)), schema["items"]) for key in {**there, **asked}]
    return _copy(config)


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _remove(node: Any, path: Path) -> None:
    """Remove what is at a path, if it is still there."""
    *before, last = path
    for part in before:
        if node is None:
            return
        node = _child(node, part)
    if isinstance(node, dict):
        node.pop(last.removeprefix("f:"), None)
    elif isinstance(node, list):
        node[:] = [item for item in node if not _is_at(item, last)]


def _child(node: Any, part: str) -> Any:
    if isinstance(node, list):
        return next((item for item in node if _is_at(item, part)), None)
    return node.get(part.removeprefix("f:"))


def _is_at(item: Any, part: str) -> bool:
    kind, _, rest = part.partition(":")
    wanted = json.loads(rest)
    return bool(item == wanted if kind == "v" else all(item.get(name) == value for name, value in wanted.items()))
