"""A pod's view of the world: mounts, secrets, a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.sources.context import SourceContext
from finetune_trainer.store.credentials import SecretFiles
from tests.support.hub import HubServer, running_hub


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubServer]:
    """One hub for all tests."""
    with running_hub() as server:
        yield server


@pytest.fixture
def hub(hub_server: HubServer) -> HubServer:
    """The hub, empty."""
    hub_server.clear()
    return hub_server


@pytest.fixture
def context(tmp_path: Path, hub_server: HubServer) -> SourceContext:
    """Directories of a pod; the hub's endpoint in its Secret, no token."""
    secret = tmp_path / "secrets/huggingface"
    secret.mkdir(parents=True)
    (secret / "HF_ENDPOINT").write_text(hub_server.endpoint)
    return SourceContext(
        cache_dir=tmp_path / "cache",
        pvc_dir=tmp_path / "pvc",
        configmap_dir=tmp_path / "configmap",
        hub_secret=SecretFiles(secret, "hub-token"),
        offline=False,
    )
