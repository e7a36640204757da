"""A kube-apiserver, spoken to directly: many small requests in the time kubectl needs for one."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from finetune_api.constants import (
    API_VERSION,
    BASE_MODEL_KIND,
    BASE_MODEL_PLURAL,
    BUDGET_KIND,
    BUDGET_PLURAL,
    CLUSTER_PRESET_KIND,
    CLUSTER_PRESET_PLURAL,
    DATASET_KIND,
    DATASET_PLURAL,
    GPU_TYPE_KIND,
    GPU_TYPE_PLURAL,
    KIND,
    METHOD_KIND,
    METHOD_PLURAL,
    PLURAL,
    PRESET_KIND,
    PRESET_PLURAL,
)

PLURALS = {
    KIND: PLURAL,
    PRESET_KIND: PRESET_PLURAL,
    CLUSTER_PRESET_KIND: CLUSTER_PRESET_PLURAL,
    METHOD_KIND: METHOD_PLURAL,
    BASE_MODEL_KIND: BASE_MODEL_PLURAL,
    GPU_TYPE_KIND: GPU_TYPE_PLURAL,
    DATASET_KIND: DATASET_PLURAL,
    BUDGET_KIND: BUDGET_PLURAL,
}
OF_CLUSTER = (CLUSTER_PRESET_KIND, METHOD_KIND, BASE_MODEL_KIND, GPU_TYPE_KIND)
MERGE_PATCH = "application/merge-patch+json"


class Answer(NamedTuple):
    """What the API server said."""

    code: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        """Why a request was refused; '' for one that was not."""
        return str(self.body.get("message", "")) if self.code >= 400 else ""


class ApiServer(NamedTuple):
    """The API server behind a local ``kubectl proxy``."""

    port: int
    namespace: str

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Answer:
        """One request; a refusal is an answer, not an error."""
        url = f"http://127.0.0.1:{self.port}{path}?{urlencode(query)}"
        content = MERGE_PATCH if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": content}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - http to this machine
                return Answer(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.load(error))

    def path(self, kind: str, name: str = "", subresource: str = "") -> str:
        """Path of a collection, an object or a subresource of one of our kinds."""
        scope = "" if kind in OF_CLUSTER else f"/namespaces/{self.namespace}"
        return "/".join(filter(None, (f"/apis/{API_VERSION}{scope}/{PLURALS[kind]}", name, subresource)))

    def judge(self, document: Mapping[str, Any]) -> str:
        """Why the API server would refuse to create ``document``, unknown fields included; '' when it accepts. Nothing is stored."""
        if document["kind"] in OF_CLUSTER:  # one of this name may be installed
            document = {**document, "metadata": {**document["metadata"], "name": f"judged-{document['metadata']['name']}"}}
        return self.request("POST", self.path(document["kind"]), document, dryRun="All", fieldValidation="Strict").message


@contextlib.contextmanager
def proxied(kubeconfig: Path, namespace: str) -> Iterator[ApiServer]:
    """The API server of ``kubeconfig``, for as long as the context lasts."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "proxy", "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert match, f"kubectl proxy said {line!r}"
        yield ApiServer(int(match[1]), namespace)
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
