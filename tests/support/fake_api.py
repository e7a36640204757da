"""A deterministic API server in memory, behind the same transport as the real one.

What it has of the real one: resourceVersion and uid preconditions, generation, status subresource, JSON merge patch, label selectors,
404/409/403 with the real ``Status`` bodies, finalizers, both kinds of deletion, terminating namespaces, a watch history. Garbage
collection and the Job controller are steps the test takes (:mod:`tests.support.operator_cluster`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_operator.cluster.client import Answer
from finetune_operator.cluster.errors import UnreachableError

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""(plural, namespace, name); the namespace of cluster-scoped objects is empty."""

START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
SPEC_RESOURCES = frozenset({"finetunejobs", "datasets", "budgets", "jobs"})
"""Resources whose generation counts changes of spec and whose status is a subresource."""
FOREGROUND = "foregroundDeletion"
_PATH = re.compile(r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?(?:/([^/]+))?$")


class Clock:
    """A clock that moves when told to."""

    def __init__(self, start: datetime = START) -> None:
        self.time = start

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - START).total_seconds()

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def text(self, offset_seconds: float = 0.0) -> str:
        return (self.time + timedelta(seconds=offset_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class CrashError(BaseException):
    """The operator's process ends here. Not an Exception: nothing may catch it on the way."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was made."""

    method: str
    path: str
    body: Any = None

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


@dataclass
class FakeApi:
    """The API server. ``fault`` is asked before and after each call and may raise, or answer in its place."""

    clock: Clock = field(default_factory=Clock)
    objects: dict[Key, Manifest] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    history: list[tuple[str, str, Manifest]] = field(default_factory=list)
    """(plural, ADDED | MODIFIED | DELETED, object) in order: what a watch would have said."""
    terminating_namespaces: set[str] = field(default_factory=set)
    fault: Callable[[Call, str], Answer | None] | None = None
    """(call, "before" | "after")."""
    _version: int = 0
    _uids: int = 0

    # --- the transport ---

    async def request(self, method: str, path: str, *, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
        call = Call(method, path, duplicate(body))
        self.calls.append(call)
        if self.fault is not None and (instead := self.fault(call, "before")) is not None:
            return instead
        answer = self._answer(method, path, query, duplicate(body))
        if self.fault is not None and (instead := self.fault(call, "after")) is not None:
            return instead
        return Answer(answer.status, answer.headers, duplicate(answer.body))

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer:
        match = _PATH.match(path)
        if match is None:
            return _failure(404, "NotFound", f"no such path {path}")
        namespace, plural, name, subresource = match[1] or "", match[2], match[3], match[4]
        if method == "POST":
            return self._post(plural, namespace, body)
        if name is None:
            found = self._select(plural, namespace, query.get("labelSelector", ""))
            return Answer(200, {}, {"items": [each for each in found if _has_field(each, query.get("fieldSelector", ""))]})
        key = (plural, namespace, name)
        if key not in self.objects:
            return _failure(404, "NotFound", f'{plural} "{name}" not found')
        match method:
            case "GET":
                return Answer(200, {}, self.objects[key])
            case "PATCH":
                return self._patch(key, body, subresource)
            case "PUT":
                return self._put(key, body)
            case "DELETE":
                return self._delete(key, body or {})
            case _:
                return _failure(405, "MethodNotAllowed", method)

    # --- verbs ---

    def _post(self, plural: str, namespace: str, manifest: Manifest) -> Answer:
        name = manifest["metadata"]["name"]
        if namespace in self.terminating_namespaces:
            cause = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
            return _failure(
                403, "Forbidden", f"unable to create new content in namespace {namespace} because it is being terminated", cause
            )
        if (plural, namespace, name) in self.objects:
            return _failure(409, "AlreadyExists", f'{plural} "{name}" already exists')
        return Answer(201, {}, self.add(plural, manifest, namespace=namespace))

    def _patch(self, key: Key, patch: Manifest, subresource: str | None) -> Answer:
        old = self.objects[key]
        metadata = patch.get("metadata") or {}
        if (refusal := self._precondition(key, {"resourceVersion": metadata.get("resourceVersion")})) is not None:
            return refusal
        if subresource is None and metadata.get("uid") not in (None, old["metadata"]["uid"]):
            cause = {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}
            return _failure(422, "Invalid", "metadata.uid: field is immutable", cause)
        new = duplicate(old)
        if subresource == "status":
            new["status"] = merge(old.get("status") or {}, patch.get("status") or {})
        else:
            skipped = ("uid", "resourceVersion") + (("status",) if key[0] in SPEC_RESOURCES else ())
            body = {name: value for name, value in patch.items() if name not in skipped}
            new = merge(new, body)
            new["metadata"] |= {"uid": old["metadata"]["uid"], "resourceVersion": old["metadata"]["resourceVersion"]}
        return Answer(200, {}, self._store(key, new))

    def _put(self, key: Key, manifest: Manifest) -> Answer:
        if (refusal := self._precondition(key, manifest["metadata"])) is not None:
            return refusal
        return Answer(200, {}, self._store(key, manifest))

    def _delete(self, key: Key, options: Manifest) -> Answer:
        if (refusal := self._precondition(key, options.get("preconditions") or {})) is not None:
            return refusal
        self.delete(key, foreground=options.get("propagationPolicy") == "Foreground")
        return Answer(200, {}, {"kind": "Status", "status": "Success"})

    def _precondition(self, key: Key, wanted: Manifest) -> Answer | None:
        actual = self.objects[key]["metadata"]
        for field_name in ("uid", "resourceVersion"):
            if wanted.get(field_name) is not None and wanted[field_name] != actual[field_name]:
                return _failure(409, "Conflict", f"{key[0]} {key[2]!r}: {field_name} {wanted[field_name]} is not {actual[field_name]}")
        return None

    # --- for tests and simulated controllers ---

    def add(self, plural: str, manifest: Manifest, *, namespace: str | None = None) -> Manifest:
        """Store a new object."""
        manifest = duplicate(manifest)
        metadata = manifest["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        self._uids += 1
        metadata |= {"uid": f"uid-{self._uids}", "creationTimestamp": self.clock.text()}
        if plural in SPEC_RESOURCES:
            metadata["generation"] = 1
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        assert key not in self.objects, key
        self._bump(manifest)
        self.objects[key] = manifest
        self.history.append((plural, "ADDED", duplicate(manifest)))
        return manifest

    def change(self, plural: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        """Merge into an object, status included."""
        key = (plural, namespace, name)
        return self._store(key, merge(self.objects[key], patch))

    def find(self, plural: str, namespace: str = "default") -> list[Manifest]:
        """Objects of a resource in a namespace, by name."""
        return list(self._select(plural, namespace, ""))

    def get(self, plural: str, name: str, namespace: str = "default") -> Manifest | None:
        """One object."""
        return self.objects.get((plural, namespace, name))

    def delete(self, key: Key, *, foreground: bool = False) -> None:
        """Delete as the API server does: with finalizers it is only marked."""
        manifest = duplicate(self.objects[key])
        metadata = manifest["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if foreground and FOREGROUND not in finalizers:
            finalizers.append(FOREGROUND)
        grace = (manifest.get("spec") or {}).get("terminationGracePeriodSeconds", 30) if key[0] == "pods" else 0
        if not finalizers and not (key[0] == "pods" and not _is_over(manifest)):
            self.remove(key)
            return
        if "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = self.clock.text(grace)
        metadata["finalizers"] = finalizers
        self._store(key, manifest)

    def remove(self, key: Key) -> None:
        """The object is gone."""
        manifest = self.objects.pop(key)
        self.history.append((key[0], "DELETED", manifest))

    def _store(self, key: Key, manifest: Manifest) -> Manifest:
        old = self.objects[key]
        if _without_version(old) == _without_version(manifest):
            return old
        if key[0] in SPEC_RESOURCES and old.get("spec") != manifest.get("spec"):
            manifest["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        self._bump(manifest)
        self.objects[key] = manifest
        self.history.append((key[0], "MODIFIED", duplicate(manifest)))
        if "deletionTimestamp" in manifest["metadata"] and not manifest["metadata"].get("finalizers") and key[0] != "pods":
            self.remove(key)
        return manifest

    def _bump(self, manifest: Manifest) -> None:
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)

    def _select(self, plural: str, namespace: str, selector: str) -> Iterator[Manifest]:
        wanted = [part.partition("=") for part in selector.split(",") if part]
        for (kind, where, _), manifest in sorted(self.objects.items()):
            labels = manifest["metadata"].get("labels") or {}
            if (
                kind == plural
                and (not namespace or where == namespace)
                and all(labels.get(k) == v if eq else k in labels for k, eq, v in wanted)
            ):
                yield manifest


def _has_field(manifest: Manifest, selector: str) -> bool:
    """Whether an object has a value at a path, as ``spec.displayName=X`` asks; a backslash escapes."""
    path, _, escaped = selector.partition("=")
    value: Any = manifest
    for step in path.split(".") if path else ():
        value = value.get(step, {}) if isinstance(value, dict) else {}
    return not path or value == re.sub(r"\\(.)", r"\1", escaped)


def duplicate(document: Any) -> Any:
    """A copy of a JSON document (several times faster than deepcopy)."""
    return json.loads(json.dumps(document)) if isinstance(document, dict | list) else document


def merge(before: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return duplicate(patch)
    result = dict(before) if isinstance(before, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def unreachable() -> UnreachableError:
    """What a lost connection raises."""
    return UnreachableError(0, "ClientError", "connection reset")


def refusal(status: int, reason: str, **headers: str) -> Answer:
    """What an API server answers that cannot, or will not, do it now."""
    return Answer(status, headers, _failure(status, reason, f"the server says {reason}").body)


def _is_over(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _without_version(manifest: Manifest) -> Manifest:
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _failure(status: int, reason: str, message: str, details: Manifest | None = None) -> Answer:
    return Answer(
        status, {}, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details or {}, "code": status}
    )
