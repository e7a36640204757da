"""Where images come from for a cluster; one implementation for each way of building."""

from typing import Protocol

from finetune_cluster.images.recipes import Recipe


class ImageStore(Protocol):
    """Builds images and makes them available to the nodes of one cluster."""

    def reference(self, recipe: Recipe) -> str:
        """Name the image of the present inputs, built or not."""
        ...

    def ensure(self, recipe: Recipe) -> str:
        """Build the image unless there is one of the present inputs, make it available to the cluster, and return its name."""
        ...
