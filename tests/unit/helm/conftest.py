"""Helm 4 and Helm 3, and what they render."""

from __future__ import annotations

import pytest

from tests.unit.helm.chart import MATRIX, Helm, Manifest, Values, helm_programs


@pytest.fixture(scope="session")
def helms() -> dict[str, Helm]:
    """Both Helm programs; built if this machine has none."""
    return helm_programs()


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
