"""A base image from Debian's packages: stands in for the public Python image where no public registry can be reached."""

import shutil
import tempfile
from pathlib import Path

from finetune_cluster.hashing import digest_of
from finetune_cluster.images.buildah import Buildah
from finetune_cluster.node.packages import IMAGE_PACKAGES, install_packages
from finetune_cluster.progress import step
from finetune_cluster.shell import run

_SUITE = "bookworm"
"""The release whose Python is 3.11, as in the public image that the Containerfiles name."""
_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_TEXTS = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale")
_NEEDLESS = (*_TEXTS, "var/cache/apt", "var/lib/apt/lists", "var/cache/debconf")
_RECIPE_VERSION = "1"


def base_reference() -> str:
    """Name the base image of the present recipe, made or not."""
    return f"localhost/finetune/base:{digest_of([_RECIPE_VERSION, _SUITE, *_PACKAGES, *_NEEDLESS])}"


def ensure_base_image(buildah: Buildah) -> str:
    """Make the base image unless it is there, and return its name."""
    reference = base_reference()
    if buildah.holds(reference):
        return reference
    install_packages(IMAGE_PACKAGES)
    with step("make the base image (about 1 min the first time)"), tempfile.TemporaryDirectory(dir=buildah.home.root) as folder:
        root = Path(folder) / "root"
        run(["nice", "-n", "10", "debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, root])
        for path in _NEEDLESS:
            _empty(root / path)
        _commit(buildah, root, reference)
    return reference


def _commit(buildah: Buildah, root: Path, reference: str) -> None:
    container = buildah("from", "scratch").strip()
    try:
        buildah("add", "--quiet", container, str(root), "/")
        buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--cmd", "python3", container)
        buildah("commit", "--quiet", "--format", "oci", container, reference)
    finally:
        buildah("rm", container)


def _empty(folder: Path) -> None:
    """Remove what is in a folder and keep the folder: package scripts expect it."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
