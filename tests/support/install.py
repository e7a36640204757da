"""Installs the chart of this checkout for tests that need real pods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune_cluster.home import Home
from tests.support.platform import RELEASE, ROOT, SYSTEM_NAMESPACE, Kubectl


def cluster_tool(*arguments: str) -> str:
    """Standard output of a finetune-cluster command."""
    done = subprocess.run([sys.executable, "-m", "finetune_cluster", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"finetune-cluster {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def image_references() -> Mapping[str, str]:
    """References of the images built from this checkout, known to the cluster's nodes."""
    images: dict[str, str] = json.loads(cluster_tool("images", "all", "--output", "json"))
    return images


def image_references_of(tree: Path) -> Mapping[str, str]:
    """The same for another version of the sources, built by its own recipes."""
    own_uv = os.environ.get("UV")  # make's own need not be on PATH, where older versions look
    path = os.pathsep.join([*([str(Path(own_uv).parent)] if own_uv else []), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(tree / "cluster" / "src")}
    command = [sys.executable, "-m", "finetune_cluster", "images", "all", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tree, env=environment)
    assert done.returncode == 0, f"images of {tree}: {done.stderr}"
    images: dict[str, str] = json.loads(done.stdout)
    return images


def unpack_previous(folder: Path) -> str | None:
    """Unpack the sources of the previous version and say which commit they are; None: this clone has no history.

    That is ``FINETUNE_PREVIOUS``, else the newest tag before this commit, else the last commit but one that changed the chart.
    """

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()

    chart = git("log", "--max-count=1", "--skip=1", "--format=%H", "--", "helm/finetune-operator/templates")
    named = os.environ.get("FINETUNE_PREVIOUS") or git("describe", "--tags", "--abbrev=0", "HEAD^") or chart
    commit = git("rev-parse", "--verify", "--quiet", f"{named}^{{commit}}") if named else ""
    if not commit:
        return None
    archive = folder / "previous.tar"
    subprocess.run(["git", "archive", "--output", str(archive), commit], check=True, cwd=ROOT)
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(folder)], check=True)
    archive.unlink()
    return commit


def tool_path(name: str) -> Path:
    """Where a program is that `finetune-cluster tools` installed, or one on PATH."""
    own = Home.of(os.environ).bin / name
    found = str(own) if own.exists() else shutil.which(name)
    assert found is not None, f"{name} is missing: finetune-cluster tools {name}"
    return Path(found)


def install_chart(kubectl: Kubectl, *settings: str, tree: Path = ROOT) -> Mapping[str, str]:
    """Helm upgrade --install with chart and images of a version of the sources; returns the images' references."""
    images = image_references() if tree == ROOT else image_references_of(tree)
    chosen = [f"image.{name}={reference}" for name, reference in images.items()]
    flags = [flag for setting in (*chosen, *settings) for flag in ("--set", setting)]
    command = [
        str(tool_path("helm")), "upgrade", "--install", RELEASE, str(tree / "helm/finetune-operator"),
        "--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--take-ownership", "--wait", "--timeout", "2m", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=kubectl.environment, check=False)
    assert done.returncode == 0, done.stderr
    return images
