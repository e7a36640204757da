"""A kind cluster in Docker."""

import datetime as dt
import shutil
from collections.abc import Mapping
from pathlib import Path

from finetune_cluster.errors import ClusterError, NotRunningError
from finetune_cluster.gobuild import KUBECTL
from finetune_cluster.home import Home
from finetune_cluster.images.docker_store import DockerImages
from finetune_cluster.kubectl import Kubectl
from finetune_cluster.node.cluster import KUBERNETES_VARIABLE
from finetune_cluster.progress import step
from finetune_cluster.provider import CONTEXT_VARIABLE, PROVIDER_VARIABLE, Provider
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import CommandError, run, succeeds
from finetune_cluster.tools import KIND, install_tool
from finetune_cluster.waiting import wait_until

CLUSTER_NAME = "finetune"
IMAGE_VARIABLE = "FINETUNE_KIND_IMAGE"
_READY_SECONDS = 180.0
_PREFIX = "localhost/finetune"
_NO_IMAGE = "failed to pull image"
"""How kind begins to say that there is no node image."""


class KindCluster:
    """The kind cluster named `finetune`; clusters of other names are not touched.

    Args:
        home: where kubeconfig and tools are kept.
        node_image: the image of its node; empty for the one kind was made for. It counts when the cluster is created.
    """

    provider = Provider.KIND

    def __init__(self, home: Home, node_image: str = "") -> None:
        self._home = home
        self._node_image = node_image
        self.images = DockerImages(_PREFIX, self._load)

    def up(self, gpus: int) -> None:
        """Create the cluster unless it exists, start it if it was stopped, and give its nodes GPUs in name."""
        stopped_at = None
        if CLUSTER_NAME not in self._clusters():
            with step("create the kind cluster"):
                self._create()
        else:
            if not self.is_running():
                stopped_at = dt.datetime.now(dt.UTC)
                with step("start the kind cluster"):
                    run(["docker", "start", *self._nodes()])
            self._home.kubeconfig.touch(mode=0o600)
            self._home.kubeconfig.write_text(run([self._kind(), "get", "kubeconfig", "--name", CLUSTER_NAME]))
        kubectl = Kubectl(shutil.which("kubectl") or install_tool(KUBECTL, self._home), self._home.kubeconfig)
        wait_until("the API server answers", kubectl.probe_api, timeout_seconds=_READY_SECONDS)
        wait_until("the nodes are ready", lambda: kubectl.probe_nodes(since=stopped_at), timeout_seconds=_READY_SECONDS)
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
        for path in (self._home.bin, self._home.builds, self._home.go):
            if path.exists():
                shutil.rmtree(path)

    def is_running(self) -> bool:
        """Whether the cluster exists and its node was not stopped."""
        running = run(["docker", "ps", "--format", "{{.Names}}"]).split()
        nodes = self._nodes()
        return bool(nodes) and all(node in running for node in nodes)

    def describe(self) -> list[str]:
        """Name the nodes, which are containers."""
        return [f"container {name}" for name in self._nodes()]

    def _create(self) -> None:
        words: list[str | Path] = ["create", "cluster", "--name", CLUSTER_NAME, "--config", repository_root() / "kind-config.yaml"]
        words += ["--kubeconfig", self._home.kubeconfig]
        if self._node_image:
            words += ["--image", self._node_image]
        try:
            run([self._kind(), *words])
        except CommandError as error:
            if _NO_IMAGE not in str(error):
                raise
            raise ClusterError(
                f"Docker cannot pull the image of kind's node. Name one that it has or can pull in {IMAGE_VARIABLE}, name a cluster of "
                f"yours in {CONTEXT_VARIABLE}, or take the node that needs neither Docker nor an image registry ({PROVIDER_VARIABLE}=node, "
                f"as root on Linux). {error}"
            ) from error

    def _clusters(self) -> list[str]:
        return run([self._kind(), "get", "clusters"]).split()

    def _nodes(self) -> list[str]:
        return run([self._kind(), "get", "nodes", "--name", CLUSTER_NAME]).split()

    def _kind(self) -> Path | str:
        return shutil.which("kind") or install_tool(KIND, self._home)

    def _load(self, reference: str) -> None:
        if not self.is_running():
            raise NotRunningError(f"{reference} is built, and there is no kind cluster to bring it to; `finetune-cluster up` starts it")
        # Names follow from contents. kind compares ids, which are of another sort where Docker keeps its images in containerd.
        if all(succeeds(["docker", "exec", node, "crictl", "inspecti", reference]) for node in self._nodes()):
            return
        run([self._kind(), "load", "docker-image", "--name", CLUSTER_NAME, reference])


def chosen_node_image(environment: Mapping[str, str]) -> str:
    """Read which image the node of a kind cluster is made from; empty for kind's own choice.

    Raises:
        ClusterError: a version is asked for in the way of the node without Docker.
    """
    if version := environment.get(KUBERNETES_VARIABLE):
        raise ClusterError(
            f"{KUBERNETES_VARIABLE}={version} is for the node without Docker: set {PROVIDER_VARIABLE}=node too, or leave it out and "
            f"choose a version of kind's by its image, such as {IMAGE_VARIABLE}=kindest/node:v{version}.0"
        )
    return environment.get(IMAGE_VARIABLE, "")
