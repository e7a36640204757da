"""A small image registry on the loopback address: builder and node exchange only the layers the other side lacks."""

import http.client
import json
import os
from pathlib import Path

from finetune_cluster import gobuild
from finetune_cluster.home import Home
from finetune_cluster.node import programs
from finetune_cluster.node.layout import REGISTRY_ADDRESS, REGISTRY_PORT, Layout
from finetune_cluster.node.processes import Processes
from finetune_cluster.node.settings import build_registry_config, render
from finetune_cluster.shell import run
from finetune_cluster.waiting import NotYetError, wait_until

_START_SECONDS = 30.0
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """The registry of this machine; it lives on when the node is taken down."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._layout = Layout(home)
        self._processes = Processes(self._layout.registry_run, self._layout.registry_run)

    def start(self) -> None:
        """Start the registry unless it runs."""
        binary = gobuild.build(gobuild.REGISTRY, self._home)
        self._layout.registry_run.mkdir(parents=True, exist_ok=True)
        self._config.write_text(render(build_registry_config(self._layout)))
        with self._home.locked("registry"):
            self._processes.ensure(programs.registry(self._layout, binary))
            wait_until("the image registry answers", self._probe, timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop the registry; its content stays."""
        self._processes.stop("registry")

    def keep_only(self, reference: str) -> None:
        """Remove older images of the same name, and the layers that no image refers to any more. Nobody may push meanwhile."""
        repository, tag = _split(reference)
        for old in json.loads(self._request("GET", f"/v2/{repository}/tags/list")[1]).get("tags") or []:
            if old != tag:
                self._request("DELETE", f"/v2/{repository}/manifests/{old}")
        program = gobuild.build(gobuild.REGISTRY, self._home)
        run([program, "garbage-collect", "--quiet", "--delete-untagged", self._config], env={**os.environ, **programs.NO_TELEMETRY})

    def is_running(self) -> bool:
        """Whether the registry's process lives."""
        return self._processes.is_alive("registry")

    def holds(self, reference: str) -> bool:
        """Whether an image of this full name is there."""
        repository, tag = _split(reference)
        return self._request("HEAD", f"/v2/{repository}/manifests/{tag}")[0] == http.HTTPStatus.OK

    @property
    def _config(self) -> Path:
        return self._layout.registry_run / "config.yaml"

    def _probe(self) -> None:
        self._processes.check("registry")
        try:
            status, _ = self._request("GET", "/v2/")
        except OSError as error:
            raise NotYetError(f"{REGISTRY_ADDRESS} does not answer: {error}") from error
        if status != http.HTTPStatus.OK:
            raise NotYetError(f"{REGISTRY_ADDRESS} answers with status {status}")

    def _request(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", REGISTRY_PORT, timeout=10)
        try:
            connection.request(method, path, headers={"Accept": _MANIFESTS})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _split(reference: str) -> tuple[str, str]:
    """Split a full name into repository and tag."""
    repository, _, tag = reference.removeprefix(f"{REGISTRY_ADDRESS}/").rpartition(":")
    return repository, tag
