"""The judge, and jobs in every phase."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fake_api import Manifest
from tests.support.gitops import ArgoJudge, Judge, find_argo_judge, find_judge
from tests.support.phases import lived


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Kstatus and Flux's expressions."""
    return find_judge()


@pytest.fixture(scope="session")
def argo() -> ArgoJudge:
    """Argo CD's runner of scripts."""
    return find_argo_judge()


@pytest.fixture(scope="session")
def jobs() -> dict[str, Manifest]:
    """Jobs as the present operator makes them, by what they show."""
    return asyncio.run(lived())
