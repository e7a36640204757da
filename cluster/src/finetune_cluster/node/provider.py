"""The local node as a cluster: node, registry and images together."""

import shutil

from finetune_cluster.home import Home
from finetune_cluster.images.buildah import RUN_ROOT
from finetune_cluster.images.node_store import NodeImages
from finetune_cluster.images.registry import Registry
from finetune_cluster.node.cluster import NodeCluster
from finetune_cluster.provider import Provider


class NodeProvider:
    """A cluster of processes on this machine."""

    provider = Provider.NODE

    def __init__(self, home: Home, kubernetes: str) -> None:
        self._home = home
        self._node = NodeCluster(home, kubernetes)
        self._registry = Registry(home)
        self.images = NodeImages(home)

    def up(self, gpus: int) -> None:
        """Start registry and node."""
        self._node.up(pause_image=self.images.ensure_pause_image(), gpus=gpus)

    def down(self) -> None:
        """End node and registry; images and builds are kept."""
        self._node.down()
        self._registry.stop()

    def purge(self) -> None:
        """Remove images and builds too."""
        home = self._home
        for path in (home.builds, home.bin, home.go, home.containerd, home.registry, home.image_builds, RUN_ROOT):
            if path.exists():
                shutil.rmtree(path)

    def is_running(self) -> bool:
        """Whether every part of the node lives."""
        return all(part.alive for part in self._node.parts())

    def describe(self) -> list[str]:
        """List the processes; of those that do not live, where their last words are."""
        lines = [f"{part.name}: {'running' if part.alive else f'not running; {part.log}'}" for part in self._node.parts()]
        return [*lines, f"registry: {'running' if self._registry.is_running() else 'not running'}"]
