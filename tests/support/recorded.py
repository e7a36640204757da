"""What was done to the in-memory API server, recorded; and the same done to another API server, to compare the answers.

Recorded are the operator's calls and what users and trainers do to the FineTuneJob. What controllers do to Jobs and pods is left to those
of the other server: it happens in its own time, so only answers that do not depend on it are compared (:attr:`Step.is_certain`).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from finetune_api.constants import PLURAL
from finetune_operator.cluster.client import JSON, MERGE_PATCH, Answer, Transport
from tests.support.fake_api import APPLY_PATCH, USER, FakeApi, Manifest, duplicate
from tests.support.operator_cluster import JOBS_PATH, NAMESPACE, FakeCluster

BY_HAND = {"fieldManager": USER}
GONE_WITHIN_SECONDS = 120.0
_OBJECT = re.compile(r"/namespaces/[^/]+/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?")


@dataclass(frozen=True)
class Step:
    """One request and its answer."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str
    answer: Answer

    @property
    def told(self) -> str:
        """The answer without what differs from server to server."""
        reason = self.answer.body.get("reason", "") if self.answer.status >= 400 else ""
        told = f"{self.method} {self.path}: {self.answer.status} {reason}".rstrip()
        return f"{told} {json.dumps(self._applied, sort_keys=True)}" if self.content_type == APPLY_PATCH else told

    @property
    def _applied(self) -> Any:
        """What came of an apply: the conflicts, or the spec and who manages which part of it."""
        body = self.answer.body
        if self.answer.status >= 400:
            causes = (body.get("details") or {}).get("causes") or ()
            conflicts = [(c["field"], c["message"]) for c in causes if c.get("reason") == "FieldManagerConflict"]
            return [body["message"], sorted(conflicts)] if conflicts else []
        managed = [
            (entry["manager"], entry["operation"], entry.get("subresource", ""), _fields(entry["fieldsV1"]["f:spec"]))
            for entry in body["metadata"]["managedFields"]
            if "f:spec" in entry["fieldsV1"]
        ]
        return [body["spec"], sorted(managed)]

    @property
    def is_certain(self) -> bool:
        """Whether the answer depends on no controller: writes, and reads of what only the operator and the user write."""
        match = _OBJECT.search(self.path)
        return self.method != "GET" or (match is not None and match["plural"] in (PLURAL, "configmaps"))


class Recording:
    """Takes down all that is done to a cluster's API server, from now on."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.steps: list[Step] = []
        self._api: FakeApi = cluster.api
        self._request, self._add, self._change = cluster.api.request, cluster.api.add, cluster.api.change
        self._send = cluster.api.send
        self._in_request = False
        cluster.api.request = self._requested  # type: ignore[method-assign]
        cluster.api.add = self._added  # type: ignore[method-assign]
        cluster.api.change = self._changed  # type: ignore[method-assign]
        cluster.api.send = self._sent  # type: ignore[method-assign]

    async def _requested(self, method: str, path: str, *, query: Any, body: Any, content_type: str) -> Answer:
        self._in_request = True
        try:
            answer = await self._request(method, path, query=query, body=body, content_type=content_type)
        finally:
            self._in_request = False
        self.steps.append(Step(method, path, dict(query), duplicate(body), content_type, answer))
        return answer

    def _sent(self, method: str, path: str, body: Any = None, *, content_type: str = JSON, **query: str) -> Answer:
        answer = self._send(method, path, body, content_type=content_type, **query)
        self.steps.append(Step(method, path, query, duplicate(body), content_type, answer))
        return answer

    def _added(self, plural: str, manifest: Manifest, *, namespace: str | None = None) -> Manifest:
        made = self._add(plural, manifest, namespace=namespace)
        if plural == PLURAL and not self._in_request:
            self.steps.append(Step("POST", JOBS_PATH, BY_HAND, duplicate(manifest), JSON, Answer(201, {}, duplicate(made))))
        return made

    def _changed(self, plural: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        if plural != PLURAL:
            return self._change(plural, namespace, name, patch)
        made: Manifest = {}
        for subresource, part in (
            ("", {key: value for key, value in patch.items() if key != "status"}),
            ("/status", {key: value for key, value in patch.items() if key == "status"}),
        ):
            if part:
                made = self._change(plural, namespace, name, part)
                path, answer = f"{JOBS_PATH}/{name}{subresource}", Answer(200, {}, duplicate(made))
                self.steps.append(Step("PATCH", path, BY_HAND, duplicate(part), MERGE_PATCH, answer))
        return made


class Replay:
    """Does what was recorded to another API server; uids and versions are those it gave instead."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport, self._namespace = transport, namespace
        self._uids: dict[str, str] = {}
        self._versions: dict[str, str] = {}

    async def run(self, steps: list[Step]) -> list[tuple[str, str]]:
        """(recorded answer, this server's answer) of each step whose answer is certain."""
        told: list[tuple[str, str]] = []
        for step in steps:
            got = await self._do(step)
            if step.is_certain:
                told.append((step.told, got.told))
        return told

    async def _do(self, step: Step) -> Step:
        path = step.path.replace(f"/namespaces/{NAMESPACE}", f"/namespaces/{self._namespace}")
        if step.method != "GET":
            await self._wait_until_gone(step, path)
        answer = await self._transport.request(
            step.method, path, query=step.query, body=self._translated(step.body), content_type=step.content_type
        )
        self._learn(step.answer, answer)
        return Step(step.method, step.path, step.query, step.body, step.content_type, answer)

    async def _wait_until_gone(self, step: Step, path: str) -> None:
        """Where the recorded answer rests on a deletion being through, give the controllers their time for it."""
        if step.answer.status == 201 and isinstance(step.body, dict):
            path = f"{path}/{step.body['metadata'].get('name', '')}"
        elif step.answer.status != 404:
            return
        deadline = time.monotonic() + GONE_WITHIN_SECONDS
        while time.monotonic() < deadline:
            found = await self._transport.request("GET", path, query={}, body=None, content_type=JSON)
            if found.status == 404 or "deletionTimestamp" not in found.body.get("metadata", {}):
                return
            await asyncio.sleep(0.5)

    def _translated(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._translated(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self._translated(part, key) for part in value]
        if not isinstance(value, str):
            return value
        if key == "resourceVersion":
            return self._versions.get(value, value)
        if key == "namespace" and value == NAMESPACE:
            return self._namespace
        return self._uids.get(value, value)

    def _learn(self, recorded: Answer, got: Answer) -> None:
        before, now = recorded.body.get("metadata") or {}, got.body.get("metadata") or {}
        if before.get("uid") and now.get("uid"):
            self._uids[before["uid"]] = now["uid"]
            self._versions[before["resourceVersion"]] = now["resourceVersion"]


def _fields(tree: Manifest, path: str = "") -> list[str]:
    """Paths of the fields of ``fieldsV1`` that have no fields of their own."""
    below = {name: part for name, part in tree.items() if name != "."}
    return sorted(line for name, part in below.items() for line in _fields(part, f"{path}/{name}")) if below else [path]
