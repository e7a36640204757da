"""The kinds of cluster behind one face."""

from collections.abc import Mapping
from typing import Protocol

from finetune_cluster.context import ContextCluster
from finetune_cluster.home import Home
from finetune_cluster.images.store import ImageStore
from finetune_cluster.kind import KindCluster, chosen_node_image
from finetune_cluster.node.cluster import chosen_version
from finetune_cluster.node.provider import NodeProvider
from finetune_cluster.provider import Provider, choose_provider, look_at_machine


class Cluster(Protocol):
    """What can be done with a cluster, whatever it is made of."""

    @property
    def provider(self) -> Provider:
        """The kind of cluster."""
        ...

    @property
    def images(self) -> ImageStore:
        """Where its images come from."""
        ...

    def up(self, gpus: int) -> None:
        """Bring it to life, with so many GPUs on each node that exist in name only."""
        ...

    def down(self) -> None:
        """Take it down; what is slow to make again is kept."""
        ...

    def purge(self) -> None:
        """Remove what `down` keeps."""
        ...

    def is_running(self) -> bool:
        """Whether it answers."""
        ...

    def describe(self) -> list[str]:
        """Say in lines what there is."""
        ...


def open_cluster(home: Home, environment: Mapping[str, str]) -> Cluster:
    """Find the cluster of this machine and user; nothing is started.

    Raises:
        NoProviderError: no kind of cluster is possible here, or not the one that was asked for.
        ClusterError: a variable has a value that the cluster cannot have.
    """
    machine = look_at_machine(environment)
    match choose_provider(machine):
        case Provider.CONTEXT:
            return ContextCluster(home, machine.context, environment)
        case Provider.KIND:
            return KindCluster(home, chosen_node_image(environment))
        case Provider.NODE:
            return NodeProvider(home, chosen_version(environment))
