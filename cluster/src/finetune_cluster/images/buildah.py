"""Builds images with buildah and hands them to the local registry."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_cluster.home import Home
from finetune_cluster.shell import run

_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


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
        """Push an image to the local registry; layers it has are not sent."""
        self("push", "--quiet", "--tls-verify=false", "--format", "oci", reference, f"docker://{reference}")

    def holds(self, reference: str) -> bool:
        """Whether the storage has an image of this name."""
        return reference in self("images", "--format", "{{.Name}}:{{.Tag}}").split()

    def __call__(self, *words: str) -> str:
        """Run buildah on the storage of its own and return what it printed."""
        storage = self.home.image_builds
        storage.mkdir(parents=True, exist_ok=True)
        options = ["--root", str(storage / "storage"), "--runroot", "/run/finetune-images", "--storage-driver", "overlay"]
        temporary = storage / "tmp"
        temporary.mkdir(exist_ok=True)
        return run(["nice", "-n", "10", "buildah", *options, *words], env={**os.environ, "TMPDIR": str(temporary)})
