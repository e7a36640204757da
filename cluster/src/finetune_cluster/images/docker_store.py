"""Images built by Docker: loaded into a kind cluster, or pushed to a registry that the user's cluster reads."""

import os
from collections.abc import Callable

from finetune_cluster.images.recipes import Recipe
from finetune_cluster.progress import step
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import run, succeeds


class DockerImages:
    """An image store whose builder is Docker.

    Args:
        prefix: what the names of the images begin with.
        deliver: takes the name of a built image to the cluster's nodes.
    """

    def __init__(self, prefix: str, deliver: Callable[[str], None]) -> None:
        self._prefix = prefix
        self._deliver = deliver

    def reference(self, recipe: Recipe) -> str:
        """Name the image of the present inputs."""
        return f"{self._prefix}/{recipe.name}:{recipe.tag(repository_root(), '')}"

    def ensure(self, recipe: Recipe) -> str:
        """Build the image unless Docker has it, and deliver it."""
        reference = self.reference(recipe)
        if not succeeds(["docker", "image", "inspect", reference]):
            root = repository_root()
            # The recipes mount caches, which the builder of old engines, and of new ones without the buildx plugin, cannot do.
            environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
            with step(f"build the {recipe.name} image ({recipe.time_note})"):
                run(
                    ["docker", "build", "--quiet", "--file", root / recipe.containerfile, "--tag", reference, root / recipe.context],
                    env=environment,
                )
        with step(f"bring the {recipe.name} image to the cluster"):
            self._deliver(reference)
        return reference
