"""Builds images with buildah and hands them to the local registry."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_cluster.home import Home
from finetune_cluster.shell import run

RUN_ROOT = Path("/run/finetune-images")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_COMPRESSION = ("--compression-format", "zstd", "--compression-level", "1")
_HEAVY_UNIT = " GB"
"""How the size of an image ends that is worth removing at once."""


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah with storage of its own, so that the machine's images are neither used nor changed."""

    home: Home

    def build(
        self, *, reference: str, containerfile: Path, context: Path, arguments: Mapping[str, str], volumes: Sequence[tuple[Path, str]] = ()
    ) -> None:
        """Build an image; layers whose inputs are unchanged are taken from the storage.

        Args:
            reference: the name the image gets.
            containerfile: the recipe.
            context: the folder its `COPY` instructions read from.
            arguments: values of its `ARG` instructions.
            volumes: folders of this machine, and where its `RUN` instructions find them; they leave no trace in the image.
        """
        words = ["bud", "--quiet", "--isolation", "chroot", "--network", "host", "--layers", "--format", "oci", "--tag", reference]
        words += ["--file", str(containerfile)]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        if _CA_BUNDLE.exists():
            # The machine may trust an authority of its own, without which nothing can be downloaded from inside.
            volumes = [*volumes, (_CA_BUNDLE, str(_CA_BUNDLE))]
        for source, target in volumes:
            words += ["--volume", f"{source}:{target}" + (":ro" if source == _CA_BUNDLE else "")]
        self(*words, str(context))

    def push(self, reference: str) -> None:
        """Push an image to the local registry; layers it has are not sent.

        Of the ways to compress, this one costs the least time on two cores, for pushing and pulling together.
        """
        self("push", "--quiet", "--tls-verify=false", "--format", "oci", *_COMPRESSION, reference, f"docker://{reference}")

    def holds(self, reference: str) -> bool:
        """Whether the storage has an image of this name."""
        return any(reference in (image.get("names") or []) for image in self._images())

    def keep_only(self, reference: str) -> None:
        """Remove older images of the same name, what broken builds left, and heavy layers that nothing refers to any more.

        Light ones stay: they are the ends of build stages, from which the next build goes on.
        """
        name = reference.rpartition(":")[0]
        self("rm", "--all")
        for image in self._images():
            for old in image.get("names") or []:
                if old.rpartition(":")[0] == name and old != reference:
                    self("rmi", old)
        for image in self._images("--filter", "dangling=true"):
            if image["size"].endswith(_HEAVY_UNIT):
                self("rmi", image["id"])

    def _images(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("images", "--json", *options) or "[]")
        return found

    def __call__(self, *words: str) -> str:
        """Run buildah on the storage of its own and return what it printed."""
        storage = self.home.image_builds
        storage.mkdir(parents=True, exist_ok=True)
        options = ["--root", str(storage / "storage"), "--runroot", str(RUN_ROOT), "--storage-driver", "overlay"]
        temporary = storage / "tmp"
        temporary.mkdir(exist_ok=True)
        return run(["nice", "-n", "10", "buildah", *options, *words], env={**os.environ, "TMPDIR": str(temporary)})
