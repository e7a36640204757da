from pathlib import Path
from typing import Any, cast

import pytest

from finetune_cli.access import Access
from finetune_cli.bucket import open_bucket
from finetune_cli.cluster import Cluster
from finetune_cli.errors import CliError
from finetune_cli.portforward import reachable
from finetune_cli.store import DirectoryStore, StoredFile, job_store, open_directory
from tests.unit.finetune_cli.builders import make_job

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_directory_store_lists_below_a_prefix(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final/adapter.bin").write_bytes(b"1234")
    (tmp_path / "lineage.json").write_text("{}")
    store = open_directory(tmp_path.as_uri())
    assert store == DirectoryStore(tmp_path)
    assert store.files("final/") == [StoredFile("final/adapter.bin", 4)]
    assert store.read("lineage.json") == b"{}"
    with pytest.raises(CliError, match="No such file"):
        store.read("missing")


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no such directory"):
        open_directory((tmp_path / "nowhere").as_uri())


def test_bucket_and_prefix_come_from_the_uri() -> None:
    store = open_bucket("s3://finetune/team/demo/u-1", KEYS, "http://127.0.0.1:9000")
    assert (store.bucket, store.prefix, store.uri) == ("finetune", "team/demo/u-1", "s3://finetune/team/demo/u-1")


def test_missing_keys_are_named() -> None:
    with pytest.raises(CliError, match="lack AWS_SECRET_ACCESS_KEY"):
        open_bucket("s3://finetune/x", {"AWS_ACCESS_KEY_ID": "a"}, "http://127.0.0.1:9000")


def test_a_job_without_output_has_no_store() -> None:
    with pytest.raises(CliError, match="has no output yet; its phase is Pending"), job_store(make_job("Pending"), None):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("endpoint", ["https://s3.eu-west-1.example.com", "http://127.0.0.1:9000"])
def test_an_address_outside_the_cluster_is_used_as_it_is(endpoint: str) -> None:
    with reachable(endpoint, Access()) as address:
        assert address == endpoint


def test_a_service_is_reached_by_a_port_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address keeps scheme and path; kubectl is asked for the Service in its namespace and is ended with the context."""
    seen = tmp_path / "arguments"
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {seen}\necho "Forwarding from 127.0.0.1:43210 -> 9000"\nexec sleep 600\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with reachable("http://finetune-store.finetune-system.svc:9000", Access(context="lab")) as address:
        assert address == "http://127.0.0.1:43210"
    assert seen.read_text().split() == [
        "--context", "lab", "port-forward", "--namespace", "finetune-system", "service/finetune-store", ":9000",
    ]  # fmt: skip


def test_a_port_forward_that_fails_shows_what_kubectl_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "error: services \\"x\\" not found" >&2\nexit 1\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with (
        pytest.raises(CliError, match='no port-forward to service/x in namespace y: error: services "x" not found'),
        reachable("http://x.y.svc:9000", Access()),
    ):
        pass


class Keys:
    """A cluster of which only the Secret is asked that a store's keys are in."""

    access = Access()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        self.asked.append(f"{namespace}/{name}")
        return {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}


@pytest.mark.parametrize(
    ("spec", "status", "name"),
    [
        ({}, {}, "finetune-storage"),
        ({}, {"storeSecret": "own-keys"}, "own-keys"),
        ({"checkpoint": {"secretRef": {"name": "mine"}}}, {"storeSecret": "own-keys"}, "mine"),
    ],
)
def test_the_keys_are_those_of_the_pods(spec: dict[str, Any], status: dict[str, Any], name: str) -> None:
    """The job's Secret, else the installation's (chart value storage.secretName), as the job's status says."""
    keys = Keys()
    job = make_job("Training", spec=spec, outputUri="s3://finetune/team/demo/u-1", **status)
    with job_store(job, cast("Cluster", keys)) as store:
        assert store.uri == "s3://finetune/team/demo/u-1"
    assert keys.asked == [f"{job.ref.namespace}/{name}"]
