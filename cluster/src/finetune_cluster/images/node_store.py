"""Images for the local node: built by buildah, kept by the local registry, pulled by the node's container runtime."""

import os
from pathlib import Path

from finetune_cluster import gobuild
from finetune_cluster.go import provide_go
from finetune_cluster.home import Home
from finetune_cluster.images.base import base_reference, ensure_base_image
from finetune_cluster.images.buildah import Buildah
from finetune_cluster.images.recipes import Base, Recipe
from finetune_cluster.images.registry import Registry
from finetune_cluster.node.cluster import NodeCluster
from finetune_cluster.node.layout import REGISTRY_ADDRESS
from finetune_cluster.node.packages import IMAGE_PACKAGES, install_packages
from finetune_cluster.progress import step
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import run

_HOST_CACHE = "/host-cache"


class NodeImages:
    """The image store of the local node."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._buildah = Buildah(home)
        self._registry = Registry(home)
        self._node = NodeCluster(home)

    def reference(self, recipe: Recipe) -> str:
        """Name the image of the present inputs."""
        return _reference(recipe.name, recipe.tag(repository_root(), base_reference()))

    def ensure(self, recipe: Recipe) -> str:
        """Build and push what the registry lacks; let the node fetch it if there is a node."""
        reference = self.reference(recipe)
        self._registry.start()
        with self._home.locked("images"):
            self._provide(recipe, reference)
        if self._node.is_running():
            with step(f"pull the {recipe.name} image into the node"):
                self._node.pull([reference])
        return reference

    def _provide(self, recipe: Recipe, reference: str) -> None:
        if not self._registry.holds(reference):
            install_packages(IMAGE_PACKAGES)
            base = ensure_base_image(self._buildah)
            with step(f"build the {recipe.name} image ({recipe.time_note})"):
                self._build(recipe, reference, base)
            with step(f"push the {recipe.name} image"):
                self._buildah.push(reference)
            self._buildah.keep_only(reference)
            self._registry.keep_only(reference)

    def ensure_pause_image(self) -> str:
        """Provide the image that holds a pod's namespaces; the node needs it before it can run anything."""
        program = gobuild.build(gobuild.PAUSE, self._home)
        reference = _reference("pause", program.parent.name.removeprefix("pause-"))
        self._registry.start()
        if self._registry.holds(reference):
            return reference
        with self._home.locked("images"):
            install_packages(IMAGE_PACKAGES)
            recipe = repository_root() / "cluster" / "images" / "pause.Containerfile"
            self._buildah.build(reference=reference, containerfile=recipe, context=program.parent, arguments={})
            self._buildah.push(reference)
        return reference

    def _build(self, recipe: Recipe, reference: str, base: str) -> None:
        arguments, volumes = _host_caches(recipe.base, self._home)
        root = repository_root()
        self._buildah.build(
            reference=reference,
            containerfile=root / recipe.containerfile,
            context=root / recipe.context,
            arguments={recipe.base.value: base, **arguments},
            volumes=volumes,
        )


def _reference(name: str, tag: str) -> str:
    return f"{REGISTRY_ADDRESS}/finetune/{name}:{tag}"


def _host_caches(base: Base, home: Home) -> tuple[dict[str, str], list[tuple[Path, str]]]:
    """Let the build use this machine's caches of downloads, and in a Go build its toolchain: the base image has none."""
    match base:
        case Base.PYTHON:
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            cache = Path(os.environ.get("UV_CACHE_DIR") or Path(caches) / "uv")  # https://docs.astral.sh/uv/reference/storage
            cache.mkdir(parents=True, exist_ok=True)
            return {"UV_CACHE_DIR": f"{_HOST_CACHE}/uv"}, [(cache, f"{_HOST_CACHE}/uv")]
        case Base.GO:
            go = provide_go(home)
            root, modules, builds = (Path(line) for line in run([go, "env", "GOROOT", "GOMODCACHE", "GOCACHE"]).splitlines())
            for folder in (modules, builds):
                folder.mkdir(parents=True, exist_ok=True)
            return (
                {
                    "GOFLAGS": " ".join(gobuild.COMPILE_FLAGS),
                    "GOMODCACHE": f"{_HOST_CACHE}/go-modules",
                    "GOCACHE": f"{_HOST_CACHE}/go-builds",
                },
                [(root, "/usr/local/go"), (modules, f"{_HOST_CACHE}/go-modules"), (builds, f"{_HOST_CACHE}/go-builds")],
            )
