import json
import os
from pathlib import Path

import pytest

from finetune_cluster.context import ContextCluster
from finetune_cluster.errors import ClusterError
from finetune_cluster.home import Home
from finetune_cluster.images.recipes import OPERATOR
from finetune_cluster.kind import KindCluster

NODES = {
    "items": [
        {
            "metadata": {"name": "one"},
            "spec": {},
            "status": {"capacity": {}, "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
        }
    ]
}


class FakePrograms:
    """Programs on PATH that write down how they are called and answer from a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, answers: dict[str, str]) -> None:
        """Add a program; an answer is chosen by the first key that is part of the arguments."""
        cases = "".join(f"  *'{key}'*) printf '%s' '{value}';;\n" for key, value in answers.items())
        program = self.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.folder}/calls\ncase "$*" in\n{cases}  *) ;;\nesac\n')
        program.chmod(0o755)

    def calls(self, start: str) -> list[str]:
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(start)] if path.exists() else []


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    fakes = FakePrograms(folder)
    fakes.add("kubectl", {"get nodes": json.dumps(NODES), "config view": "apiVersion: v1\n"})
    fakes.add("docker", {})
    fakes.add("kind", {})
    return fakes


def test_a_kind_cluster_is_made_under_our_name_and_those_of_others_are_left_alone(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("kind", {"get clusters": "work\nother\n"})
    cluster = KindCluster(Home(tmp_path / "home"))
    cluster.up(gpus=4)
    assert len(fakes.calls("kind create cluster --name finetune ")) == 1
    assert '"nvidia.com/gpu": "4"' in fakes.calls("kubectl")[-1]
    cluster.down()
    assert fakes.calls("kind delete") == ["kind delete cluster --name finetune"]


def test_a_kind_cluster_that_exists_is_taken_as_it_is(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("kind", {"get clusters": "finetune\n", "get kubeconfig": "apiVersion: v1\n"})
    home = Home(tmp_path / "home")
    home.root.mkdir()
    KindCluster(home).up(gpus=0)
    assert fakes.calls("kind create") == []
    assert home.kubeconfig.read_text() == "apiVersion: v1\n"


def test_an_image_docker_has_is_only_loaded(fakes: FakePrograms, tmp_path: Path) -> None:
    reference = KindCluster(Home(tmp_path)).images.ensure(OPERATOR)
    assert fakes.calls("docker build") == []
    assert fakes.calls("kind load") == [f"kind load docker-image --name finetune {reference}"]


def test_a_named_cluster_is_read_and_never_written(fakes: FakePrograms, tmp_path: Path) -> None:
    cluster = ContextCluster(Home(tmp_path / "home"), "staging", {})
    cluster.up(gpus=8)
    cluster.down()
    assert fakes.calls("kubectl config") == ["kubectl config view --minify --flatten --context staging"]
    assert all(" get --raw /readyz" in call for call in fakes.calls("kubectl --kubeconfig"))


@pytest.mark.parametrize(
    ("context", "registry", "expected"),
    [
        ("kind-work", "", "kind load docker-image --name work localhost/finetune/operator:"),
        ("staging", "registry.example.com/team", "docker push --quiet registry.example.com/team/operator:"),
        ("kind-work", "registry.example.com/team", "docker push --quiet registry.example.com/team/operator:"),
    ],
)
def test_images_reach_a_named_cluster_by_kind_or_by_the_registry_it_reads(
    fakes: FakePrograms, tmp_path: Path, context: str, registry: str, expected: str
) -> None:
    ContextCluster(Home(tmp_path), context, {"FINETUNE_REGISTRY": registry}).images.ensure(OPERATOR)
    assert len(fakes.calls(expected)) == 1


def test_without_a_way_for_images_the_error_names_the_variable(fakes: FakePrograms, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="FINETUNE_REGISTRY"):
        ContextCluster(Home(tmp_path), "staging", {}).images.ensure(OPERATOR)
