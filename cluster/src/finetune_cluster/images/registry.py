"""A small image registry on the loopback address: builder and node exchange only the layers the other side lacks."""

import http.client

from finetune_cluster import gobuild
from finetune_cluster.home import Home
from finetune_cluster.node import programs
from finetune_cluster.node.layout import REGISTRY_ADDRESS, REGISTRY_PORT, Layout
from finetune_cluster.node.processes import Processes
from finetune_cluster.node.settings import build_registry_config, render
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
        (self._layout.registry_run / "config.yaml").write_text(render(build_registry_config(self._layout)))
        self._processes.ensure(programs.registry(self._layout, binary))
        wait_until("the image registry answers", self._probe, timeout_seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop the registry; its content stays."""
        self._processes.stop("registry")

    def is_running(self) -> bool:
        """Whether the registry's process lives."""
        return self._processes.is_alive("registry")

    def holds(self, reference: str) -> bool:
        """Whether an image of this full name is there."""
        repository, _, tag = reference.removeprefix(f"{REGISTRY_ADDRESS}/").rpartition(":")
        return self._status(f"/v2/{repository}/manifests/{tag}") == http.HTTPStatus.OK

    def _probe(self) -> None:
        self._processes.check("registry")
        try:
            status = self._status("/v2/")
        except OSError as error:
            raise NotYetError(f"{REGISTRY_ADDRESS} does not answer: {error}") from error
        if status != http.HTTPStatus.OK:
            raise NotYetError(f"{REGISTRY_ADDRESS} answers with status {status}")

    def _status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", REGISTRY_PORT, timeout=10)
        try:
            connection.request("HEAD", path, headers={"Accept": _MANIFESTS})
            return connection.getresponse().status
        finally:
            connection.close()
