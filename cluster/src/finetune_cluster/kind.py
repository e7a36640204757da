"""A kind cluster in Docker."""

import shutil
from pathlib import Path

from finetune_cluster.home import Home
from finetune_cluster.images.docker_store import DockerImages
from finetune_cluster.kubectl import Kubectl
from finetune_cluster.progress import step
from finetune_cluster.provider import Provider
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import run
from finetune_cluster.tools import KIND, install_tool
from finetune_cluster.waiting import wait_until

CLUSTER_NAME = "finetune"
_READY_SECONDS = 180.0
_PREFIX = "localhost/finetune"


class KindCluster:
    """The kind cluster named `finetune`; clusters of other names are not touched."""

    provider = Provider.KIND

    def __init__(self, home: Home) -> None:
        self._home = home
        self.images = DockerImages(_PREFIX, self._load)

    def up(self, gpus: int) -> None:
        """Create the cluster unless it exists, and give its nodes GPUs in name."""
        if CLUSTER_NAME not in self._clusters():
            config = repository_root() / "kind-config.yaml"
            with step("create the kind cluster"):
                run([self._kind(), "create", "cluster", "--name", CLUSTER_NAME, "--config", config, "--kubeconfig", self._home.kubeconfig])
        else:
            self._home.kubeconfig.touch(mode=0o600)
            self._home.kubeconfig.write_text(run([self._kind(), "get", "kubeconfig", "--name", CLUSTER_NAME]))
        kubectl = Kubectl("kubectl", self._home.kubeconfig)
        wait_until("the API server answers", kubectl.probe_api, timeout_seconds=_READY_SECONDS)
        wait_until("the nodes are ready", kubectl.probe_nodes, timeout_seconds=_READY_SECONDS)
        kubectl.give_gpus(gpus)

    def down(self) -> None:
        """Delete the cluster; images stay in Docker."""
        run([self._kind(), "delete", "cluster", "--name", CLUSTER_NAME])
        self._home.kubeconfig.unlink(missing_ok=True)

    def purge(self) -> None:
        """Remove the images from Docker, and the tools."""
        images = run(["docker", "images", "--quiet", f"{_PREFIX}/*"]).split()
        if images:
            run(["docker", "image", "rm", "--force", *sorted(set(images))])
        for path in (self._home.bin, self._home.builds):
            if path.exists():
                shutil.rmtree(path)

    def is_running(self) -> bool:
        """Whether the cluster exists."""
        return CLUSTER_NAME in self._clusters()

    def describe(self) -> list[str]:
        """Name the nodes, which are containers."""
        return [f"container {name}" for name in run([self._kind(), "get", "nodes", "--name", CLUSTER_NAME]).split()]

    def _clusters(self) -> list[str]:
        return run([self._kind(), "get", "clusters"]).split()

    def _kind(self) -> Path | str:
        return shutil.which("kind") or install_tool(KIND, self._home)

    def _load(self, reference: str) -> None:
        run([self._kind(), "load", "docker-image", "--name", CLUSTER_NAME, reference])
