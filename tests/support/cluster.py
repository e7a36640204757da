"""Finds the cluster tests may use, and refuses any other.

A cluster that `finetune-cluster up` made, of whatever kind, is known. Any other one (KUBECONFIG points elsewhere) is used only when
KUBE_CONTEXT names its current context: tests create and delete things.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import yaml

from finetune_cluster.home import Home

REQUIRE = "FINETUNE_REQUIRE_CLUSTER"
"""Set to 1 where a missing cluster is a failure, not a reason to skip (`make test`)."""


class NoClusterError(Exception):
    """There is no cluster tests may use; the message says what to do."""


def find_kubeconfig(environment: Mapping[str, str]) -> Path:
    """The kubeconfig of the cluster to test on. Raises :class:`NoClusterError` when there is none, or none that may be used."""
    own = Home.of(environment).kubeconfig
    path = Path(environment["KUBECONFIG"]) if environment.get("KUBECONFIG") else own
    if not path.is_file():
        raise NoClusterError(f"no cluster: {path} does not exist; start one with `make cluster`, or set KUBECONFIG and KUBE_CONTEXT")
    if path.resolve() == own.resolve():
        return path
    context, named = current_context(path), environment.get("KUBE_CONTEXT")
    if named != context:
        raise NoClusterError(f"{path} has the unknown current context {context}; set KUBE_CONTEXT={context} to allow tests on it")
    return path


def current_context(kubeconfig: Path) -> str:
    """Name of the context kubectl would use."""
    return str(yaml.safe_load(kubeconfig.read_text(encoding="utf-8")).get("current-context", ""))


def check_api(kubeconfig: Path) -> None:
    """Raise :class:`NoClusterError` unless the API server answers."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "--request-timeout=10s", "get", "--raw", "/readyz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise NoClusterError(f"the cluster of {kubeconfig} does not answer ({done.stderr.strip()}); start it with `make cluster`")


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """Kubeconfig of a cluster that answers; skips without one, and fails where one is required."""
    try:
        path = find_kubeconfig(os.environ)
        check_api(path)
    except NoClusterError as error:
        _leave(str(error))
    return path


def _leave(sentence: str) -> NoReturn:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
