"""Helm 4 and Helm 3, found on PATH or among the cluster's tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_cluster.home import Home
from tests.unit.helm.chart import MATRIX, ROOT, Helm, Manifest, Values

NAMES = ("helm", "helm3")


def found(name: str) -> Path | None:
    """Where a Helm program is, None if nowhere."""
    path = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}{Home.of(os.environ).bin}")
    return Path(path) if path else None


@pytest.fixture(scope="session")
def helms() -> dict[str, Helm]:
    """Both Helm programs; built if this machine has none."""
    if not all(found(name) for name in NAMES):
        subprocess.run([sys.executable, "-m", "finetune_cluster", "tools", *NAMES], check=True, cwd=ROOT)
    programs = {name: found(name) for name in NAMES}
    assert all(programs.values()), f"finetune-cluster tools made no {[name for name, path in programs.items() if path is None]}"
    return {name: Helm(path) for name, path in programs.items() if path is not None}


@pytest.fixture(scope="session")
def helm(helms: dict[str, Helm]) -> Helm:
    """Helm 4."""
    return helms["helm"]


@pytest.fixture(scope="session")
def default_manifests(helm: Helm) -> list[Manifest]:
    """What the chart renders without any value set."""
    return helm.template()


@pytest.fixture(scope="session", params=MATRIX)
def case(request: pytest.FixtureRequest) -> tuple[str, Values]:
    """A row of the matrix of values."""
    return str(request.param), MATRIX[request.param]


@pytest.fixture(scope="session")
def manifests(helm: Helm, case: tuple[str, Values]) -> list[Manifest]:
    """What the chart renders with the values of a row."""
    return helm.template(case[1])
