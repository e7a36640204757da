"""Where everything is kept: one folder per user, outside the clone, so that every clone finds the same cluster."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "FINETUNE_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of the per-user folder."""

    root: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Home":
        """Find the folder: `$FINETUNE_HOME`, by default `~/.cache/finetune`."""
        named = environment.get(HOME_VARIABLE)
        return cls(Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "finetune")

    @property
    def bin(self) -> Path:
        """Programs for people: kubectl and the tools that were asked for. Belongs on PATH."""
        return self.root / "bin"

    @property
    def builds(self) -> Path:
        """Go programs, one folder for each key of inputs."""
        return self.root / "builds"

    @property
    def go(self) -> Path:
        """Go, where the machine has none that is new enough."""
        return self.root / "go"

    @property
    def kubeconfig(self) -> Path:
        """How to reach the cluster, whatever its kind."""
        return self.root / "kubeconfig"

    @property
    def node(self) -> Path:
        """State of the local node; removed by `down`."""
        return self.root / "node"

    @property
    def containerd(self) -> Path:
        """Images and layers of the local node; kept by `down`, since filling it again takes minutes."""
        return self.root / "containerd"

    @property
    def registry(self) -> Path:
        """Blobs of the local image registry."""
        return self.root / "registry"

    @property
    def image_builds(self) -> Path:
        """Storage of the image builder."""
        return self.root / "image-builds"

    @contextlib.contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Let one command at a time change a part of what is here; others wait for it. Must not be nested for the same part."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(locks / what, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
