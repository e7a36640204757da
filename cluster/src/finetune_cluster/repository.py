"""The clone this package runs from: Go modules, Containerfiles and image sources are read from there, never written."""

from pathlib import Path

from finetune_cluster.errors import ClusterError


def repository_root() -> Path:
    """Return the root of the clone.

    Raises:
        ClusterError: the package was installed elsewhere, without its clone.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "cluster" / "go" / "node" / "go.mod").exists():
        raise ClusterError(f"{root} is not a clone of the repository; run this command with `uv run finetune-cluster` from a clone")
    return root
