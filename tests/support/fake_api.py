"""A deterministic API server in memory, behind the same transport as the real one.

What it has of the real one: resourceVersion and uid preconditions, generation, status and scale subresources, JSON merge patch, label
selectors, 404/409/410/403 with the real ``Status`` bodies, finalizers, both kinds of deletion, terminating namespaces, watches; of our own
kinds the schema's defaults, field managers and server-side apply (:mod:`tests.support.field_managers`). Garbage collection and the Job
controller are steps the test takes (:mod:`tests.support.operator_cluster`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_operator.cluster.client import Answer
from finetune_operator.cluster.errors import UnreachableError
from tests.support.field_managers import (
    CRDS,
    ConflictsError,
    Manager,
    Owners,
    applied,
    managed_fields,
    schema_of,
    updated,
    with_defaults,
)

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""(plural, namespace, name); the namespace of cluster-scoped objects is empty."""

START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
SPEC_RESOURCES = frozenset({"finetunejobs", "datasets", "budgets", "jobs"})
"""Resources whose generation counts changes of spec and whose status is a subresource."""
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
FOREGROUND = "foregroundDeletion"
APPLY_PATCH = "application/apply-patch+yaml"
USER = "kubectl-edit"
"""Field manager of what tests change by hand."""
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
    rights: Container[tuple[str, str]] | None = None
    """(resource with its subresource, verb) of all that the operator may do; None: everything."""
    _version: int = 0
    _uids: int = 0
    _compacted: int = 0
    """Versions before this one are forgotten."""
    _owners: dict[Key, Owners] = field(default_factory=dict)

    # --- the transport ---

    def send(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str) -> Answer:
        """A request of somebody else than the operator: neither counted nor disturbed."""
        answer = self._answer(method, path, query, duplicate(body), content_type)
        return Answer(answer.status, answer.headers, duplicate(answer.body))

    async def request(self, method: str, path: str, *, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
        call = Call(method, path, duplicate(body))
        self.calls.append(call)
        if self.fault is not None and (instead := self.fault(call, "before")) is not None:
            return instead
        answer = self._judged(method, path) or self._answer(method, path, query, duplicate(body), content_type)
        if self.fault is not None and (instead := self.fault(call, "after")) is not None:
            return instead
        return Answer(answer.status, answer.headers, duplicate(answer.body))

    def _judged(self, method: str, path: str) -> Answer | None:
        """A refusal, where the operator's rights do not suffice."""
        match = _PATH.match(path)
        if self.rights is None or match is None:
            return None
        verb = VERBS[method] if match[3] or method != "GET" else "list"
        resource = f"{match[2]}/{match[4]}" if match[4] else match[2]
        if (resource, verb) in self.rights:
            return None
        return _failure(403, "Forbidden", f'{resource} is forbidden: User "operator" cannot {verb} resource "{resource}"')

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
        match = _PATH.match(path)
        if match is None:
            return _failure(404, "NotFound", f"no such path {path}")
        namespace, plural, name, subresource = match[1] or "", match[2], match[3], match[4]
        by = Manager(query.get("fieldManager", ""), "Update", subresource or "")
        if method == "POST":
            return self._post(plural, namespace, body, by)
        if name is None:
            return self._watch(plural, namespace, query) if "watch" in query else self._list(plural, namespace, query)
        key = (plural, namespace, name)
        if method == "PATCH" and content_type == APPLY_PATCH and (key in self.objects or subresource is None):
            return self._apply(key, body, by._replace(operation="Apply"), force=query.get("force") == "true")
        if key not in self.objects:
            return _failure(404, "NotFound", f'{plural} "{name}" not found')
        match method:
            case "GET":
                return Answer(200, {}, self.objects[key])
            case "PATCH":
                return self._patch(key, body, by)
            case "PUT":
                return self._put(key, body, by)
            case "DELETE":
                return self._delete(key, body or {})
            case _:
                return _failure(405, "MethodNotAllowed", method)

    def _list(self, plural: str, namespace: str, query: Mapping[str, str]) -> Answer:
        exact = query.get("resourceVersion") if query.get("resourceVersionMatch") == "Exact" else None
        if exact is not None:
            assert int(exact) < self._compacted, "of the past, only what is forgotten is known"
            return _failure(410, "Expired", "The resourceVersion for the provided list is too old.")
        found = self._select(plural, namespace, query.get("labelSelector", ""))
        items = [each for each in found if _has_field(each, query.get("fieldSelector", ""))]
        return Answer(200, {}, {"metadata": {"resourceVersion": str(self._version)}, "items": items})

    def _watch(self, plural: str, namespace: str, query: Mapping[str, str]) -> Answer:
        """What the stream has said until now, as ``events``."""
        since = int(query["resourceVersion"])
        if since < self._compacted:
            too_old = _failure(410, "Expired", f"too old resource version: {since} ({self._compacted})").body
            return Answer(200, {}, {"events": [{"type": "ERROR", "object": too_old}]})
        wanted = _selector(query.get("labelSelector", ""))
        events = [
            {"type": kind, "object": manifest}
            for which, kind, manifest in self.history
            if which == plural
            and int(manifest["metadata"]["resourceVersion"]) > since
            and namespace in ("", manifest["metadata"].get("namespace"))
            and wanted(manifest)
        ]
        if query.get("allowWatchBookmarks") == "true":
            events.append({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._version)}}})
        return Answer(200, {}, {"events": events})

    # --- verbs ---

    def _post(self, plural: str, namespace: str, manifest: Manifest, by: Manager) -> Answer:
        name = manifest["metadata"]["name"]
        if namespace in self.terminating_namespaces:
            cause = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
            return _failure(
                403, "Forbidden", f"unable to create new content in namespace {namespace} because it is being terminated", cause
            )
        if (plural, namespace, name) in self.objects:
            return _failure(409, "AlreadyExists", f'{plural} "{name}" already exists')
        return Answer(201, {}, self._create(plural, manifest, namespace, by))

    def _apply(self, key: Key, config: Manifest, by: Manager, *, force: bool) -> Answer:
        """Server-side apply: creates or merges, takes fields away that the manager has given up, refuses what others manage."""
        plural, namespace, _ = key
        metadata = config["metadata"]
        if not by.name:
            message = 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            return _failure(422, "Invalid", message, {"causes": [{"reason": "FieldValueRequired", "field": "fieldManager"}]})
        if "managedFields" in metadata:
            return _failure(400, "BadRequest", "metadata.managedFields must be nil")
        if key not in self.objects:
            made = self._post(plural, namespace, config, by)
            return Answer(made.status, {}, self._with_managers(key)) if made.status == 201 else made
        if (refusal := self._precondition(key, metadata)) is not None:
            return refusal
        schema = schema_of(plural)
        live = self.objects[key]
        try:
            new, owners = applied(self._owners.get(key, {}), live, _part(config, by), by, schema, force=force)
        except ConflictsError as error:
            return _failure(409, "Conflict", str(error), {"causes": error.causes})
        new = with_defaults(new, schema)
        new["metadata"] |= {name: live["metadata"][name] for name in ("uid", "resourceVersion")}
        self._store(key, new, by, owners)
        return Answer(200, {}, self._with_managers(key))

    def _with_managers(self, key: Key) -> Manifest:
        manifest = self.objects[key]
        return {**manifest, "metadata": {**manifest["metadata"], "managedFields": managed_fields(self._owners[key])}}

    def _patch(self, key: Key, patch: Manifest, by: Manager) -> Answer:
        old = self.objects[key]
        metadata = patch.get("metadata") or {}
        if (refusal := self._precondition(key, {"resourceVersion": metadata.get("resourceVersion")})) is not None:
            return refusal
        if not by.subresource and metadata.get("uid") not in (None, old["metadata"]["uid"]):
            cause = {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}
            return _failure(422, "Invalid", "metadata.uid: field is immutable", cause)
        new = duplicate(old)
        if by.subresource == "status":
            new["status"] = merge(old.get("status") or {}, patch.get("status") or {})
        elif by.subresource == "scale":
            new["spec"]["replicas"] = patch["spec"]["replicas"]
            owners = updated(self._owners[key], old, new, by, schema_of(key[0]))
            owners.pop(by, None)  # of a custom resource, a scale is recorded as nobody's
            return Answer(200, {}, _scale_of(self._store(key, new, by, owners)))
        else:
            skipped = ("uid", "resourceVersion") + (("status",) if key[0] in SPEC_RESOURCES else ())
            body = {name: value for name, value in patch.items() if name not in skipped}
            new = merge(new, body)
            new["metadata"] |= {"uid": old["metadata"]["uid"], "resourceVersion": old["metadata"]["resourceVersion"]}
        return Answer(200, {}, self._store(key, new, by))

    def _put(self, key: Key, manifest: Manifest, by: Manager) -> Answer:
        if (refusal := self._precondition(key, manifest["metadata"])) is not None:
            return refusal
        return Answer(200, {}, self._store(key, manifest, by))

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
        """Store a new object, as somebody makes it by hand."""
        return self._create(plural, manifest, namespace, Manager(USER, "Update"))

    def _create(self, plural: str, manifest: Manifest, namespace: str | None, by: Manager) -> Manifest:
        given, manifest = manifest, duplicate(manifest)
        if plural in CRDS:
            manifest = with_defaults(manifest, schema_of(plural))
        metadata = manifest["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        self._uids += 1
        metadata |= {"uid": f"uid-{self._uids}", "creationTimestamp": self.clock.text()}
        if plural in SPEC_RESOURCES:
            metadata["generation"] = 1
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        assert key not in self.objects, key
        if plural in CRDS:
            schema, is_apply = schema_of(plural), by.operation == "Apply"
            self._owners[key] = (
                applied({}, {}, _part(given, by), by, schema, force=True)[1] if is_apply else updated({}, {}, manifest, by, schema)
            )
        self._bump(manifest)
        self.objects[key] = manifest
        self.history.append((plural, "ADDED", duplicate(manifest)))
        return manifest

    def change(self, plural: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        """Merge into an object, status included."""
        key = (plural, namespace, name)
        assert "status" not in patch or "spec" not in patch or plural not in CRDS, "two requests"
        return self._store(key, merge(self.objects[key], patch), Manager(USER, "Update", "status" if "status" in patch else ""))

    def owners(self, key: Key) -> Owners:
        """Who manages which fields of an object of ours."""
        return self._owners.get(key, {})

    def forget_the_past(self) -> None:
        """The API server compacts: a watch from a version before this one is answered 410 Gone."""
        self._compacted = self._version

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
        self._store(key, manifest, Manager("kube-apiserver", "Update"))

    def remove(self, key: Key) -> None:
        """The object is gone."""
        manifest = duplicate(self.objects.pop(key))
        self._owners.pop(key, None)
        self._bump(manifest)
        self.history.append((key[0], "DELETED", manifest))

    def _store(self, key: Key, manifest: Manifest, by: Manager, owners: Owners | None = None) -> Manifest:
        """``owners``: None for a write that is no apply."""
        old, owned = self.objects[key], self._owners.get(key, {})
        if owners is None and key[0] in CRDS:
            owners = updated(owned, old, manifest, by, schema_of(key[0]))
        if _without_version(old) == _without_version(manifest) and owners in (None, owned):
            return old
        if owners is not None:
            self._owners[key] = owners
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
        wanted = _selector(selector)
        for (kind, where, _), manifest in sorted(self.objects.items()):
            if kind == plural and (not namespace or where == namespace) and wanted(manifest):
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


def _selector(text: str) -> Callable[[Manifest], bool]:
    wanted = [part.partition("=") for part in text.split(",") if part]

    def matches(manifest: Manifest) -> bool:
        labels = manifest["metadata"].get("labels") or {}
        return all(labels.get(name) == value if equals else name in labels for name, equals, value in wanted)

    return matches


def _part(config: Manifest, by: Manager) -> Manifest:
    """What of an applied object the (sub)resource takes."""
    if by.subresource:
        return {by.subresource: config.get(by.subresource) or {}}
    return {name: value for name, value in config.items() if name != "status"}


def _scale_of(manifest: Manifest) -> Manifest:
    """The scale subresource."""
    metadata = {name: manifest["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {"replicas": manifest["spec"]["replicas"]}}


def _is_over(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _without_version(manifest: Manifest) -> Manifest:
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _failure(status: int, reason: str, message: str, details: Manifest | None = None) -> Answer:
    return Answer(
        status, {}, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details or {}, "code": status}
    )
