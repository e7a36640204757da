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


def tool_path(name: str) -> Path:
    """Where a program is that `finetune-cluster tools` installed, or one on PATH."""
    own = Home.of(os.environ).bin / name
    found = str(own) if own.exists() else shutil.which(name)
    assert found is not None, f"{name} is missing: finetune-cluster tools {name}"
    return Path(found)


def install_chart(kubectl: Kubectl, *settings: str) -> Mapping[str, str]:
    """Helm upgrade --install with the images of this checkout; returns their references."""
    images = image_references()
    chosen = [f"image.{name}={reference}" for name, reference in images.items()]
    flags = [flag for setting in (*chosen, *settings) for flag in ("--set", setting)]
    command = [
        str(tool_path("helm")), "upgrade", "--install", RELEASE, str(ROOT / "helm/finetune-operator"),
        "--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--take-ownership", "--wait", "--timeout", "2m", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=kubectl.environment, check=False)
    assert done.returncode == 0, done.stderr
    return images
