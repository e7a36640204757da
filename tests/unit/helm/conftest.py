"""Helm 4 and Helm 3, and what they render."""

from __future__ import annotations

import pytest

from tests.unit.helm.chart import MATRIX, Helm, Manifest, Values, documents, helm_programs


@pytest.fixture(scope="session")
def helms() -> dict[str, Helm]:
    """Both Helm programs; built if this machine has none."""
    return helm_programs()


@pytest.fixture(scope="session")
def helm(helms: dict[str, Helm]) -> Helm:
    """Helm 4."""
    return helms["helm"]


@pytest.fixture(scope="session")
def rendered(helms: dict[str, Helm]) -> dict[str, dict[str, str]]:
    """What each Helm prints for each row of the matrix of values: by program, by row."""
    return {name: {row: helm.text(values) for row, values in MATRIX.items()} for name, helm in helms.items()}


@pytest.fixture(scope="session")
def default_manifests(rendered: dict[str, dict[str, str]]) -> list[Manifest]:
    """What the chart renders without any value set."""
    return documents(rendered["helm"]["defaults"])


@pytest.fixture(scope="session", params=MATRIX)
def case(request: pytest.FixtureRequest) -> tuple[str, Values]:
    """A row of the matrix of values."""
    return str(request.param), MATRIX[request.param]


@pytest.fixture(scope="session")
def manifests(rendered: dict[str, dict[str, str]], case: tuple[str, Values]) -> list[Manifest]:
    """What the chart renders with the values of a row."""
    return documents(rendered["helm"][case[0]])
