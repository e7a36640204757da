import json
import os
from pathlib import Path

import pytest

from finetune_cluster.context import ContextCluster
from finetune_cluster.errors import ClusterError, NotRunningError
from finetune_cluster.home import Home
from finetune_cluster.images.recipes import OPERATOR
from finetune_cluster.kind import KindCluster, chosen_node_image

NODE = "finetune-control-plane"
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

    def add(self, name: str, answers: dict[str, str], *, failures: dict[str, str] | None = None) -> None:
        """Add a program; an answer, or an error and exit code 1, is chosen by the first key that is part of the arguments."""
        cases = "".join(f"  *'{key}'*) printf '%s' '{value}' >&2; exit 1;;\n" for key, value in (failures or {}).items())
        cases += "".join(f"  *'{key}'*) printf '%s' '{value}';;\n" for key, value in answers.items())
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
    fakes.add("kubectl", {"get nodes": json.dumps(NODES), "config view": "apiVersion: v1\n", "get-contexts": "staging\nkind-work\n"})
    fakes.add("docker", {"ps --format": f"{NODE}\n"}, failures={"inspecti": "no such image"})
    fakes.add("kind", {"get nodes": f"{NODE}\n"})
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
    fakes.add("kind", {"get clusters": "finetune\n", "get kubeconfig": "apiVersion: v1\n", "get nodes": f"{NODE}\n"})
    home = Home(tmp_path / "home")
    home.root.mkdir()
    KindCluster(home, "kindest/node:v1.36.3").up(gpus=0)
    assert fakes.calls("kind create") == []
    assert fakes.calls("docker start") == []
    assert home.kubeconfig.read_text() == "apiVersion: v1\n"


def test_a_kind_cluster_that_was_stopped_is_started_and_its_node_has_to_say_anew_that_it_is_ready(
    fakes: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready is what the node said before it was stopped: pods could be placed on it too early."""
    monkeypatch.setattr("finetune_cluster.kind._READY_SECONDS", 0)
    fakes.add("kind", {"get clusters": "finetune\n", "get kubeconfig": "apiVersion: v1\n", "get nodes": f"{NODE}\n"})
    fakes.add("docker", {})
    home = Home(tmp_path / "home")
    home.root.mkdir()
    with pytest.raises(ClusterError, match="nodes not ready: one"):
        KindCluster(home).up(gpus=0)
    assert fakes.calls("docker start") == [f"docker start {NODE}"]


def test_a_kind_cluster_whose_node_was_stopped_does_not_run(fakes: FakePrograms, tmp_path: Path) -> None:
    cluster = KindCluster(Home(tmp_path))
    assert cluster.is_running()
    fakes.add("docker", {"ps --format": "other-control-plane\n"})
    assert not cluster.is_running()
    assert cluster.describe() == [f"container {NODE}"]


def test_the_image_of_the_node_can_be_named(fakes: FakePrograms, tmp_path: Path) -> None:
    environment = {"FINETUNE_KIND_IMAGE": "registry.example.com/kindest/node:v1.36.3"}
    KindCluster(Home(tmp_path), chosen_node_image(environment)).up(gpus=0)
    assert fakes.calls("kind create")[0].endswith(" --image registry.example.com/kindest/node:v1.36.3")


def test_a_version_of_the_node_without_docker_is_refused_with_the_two_ways_to_have_it() -> None:
    with pytest.raises(
        ClusterError, match=r"FINETUNE_KUBERNETES=1\.32 .* FINETUNE_CLUSTER=node .* FINETUNE_KIND_IMAGE=kindest/node:v1\.32\.0"
    ):
        chosen_node_image({"FINETUNE_KUBERNETES": "1.32"})


def test_without_an_image_for_its_node_the_error_names_the_ways_out(fakes: FakePrograms, tmp_path: Path) -> None:
    said = "ERROR: failed to create cluster: failed to pull image kindest/node:v1.37.0: command failed"
    fakes.add("kind", {}, failures={"create cluster": said})
    with pytest.raises(ClusterError, match=r"FINETUNE_KIND_IMAGE.*KUBE_CONTEXT.*FINETUNE_CLUSTER=node") as raised:
        KindCluster(Home(tmp_path)).up(gpus=0)
    assert said in str(raised.value)


def test_another_failure_of_kind_is_told_as_it_is(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("kind", {}, failures={"create cluster": "ERROR: failed to init node with kubeadm"})
    with pytest.raises(ClusterError, match="failed to init node with kubeadm") as raised:
        KindCluster(Home(tmp_path)).up(gpus=0)
    assert "FINETUNE_KIND_IMAGE" not in str(raised.value)


def test_images_are_built_by_buildkit_whatever_the_user_has_set(
    fakes: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    fakes.add("docker", {"ps --format": f"{NODE}\n"}, failures={"image inspect": "no such image", "inspecti": "no such image"})
    docker = fakes.folder / "docker"
    docker.write_text(docker.read_text().replace('echo "docker', 'echo "$DOCKER_BUILDKIT docker'))
    reference = KindCluster(Home(tmp_path)).images.ensure(OPERATOR)
    assert [call for call in fakes.calls("1 docker build") if call.split().count(reference) == 1]


def test_an_image_without_a_cluster_to_bring_it_to_is_an_error_that_says_so(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("kind", {"get nodes": ""})
    with pytest.raises(NotRunningError, match="finetune-cluster up"):
        KindCluster(Home(tmp_path)).images.ensure(OPERATOR)
    assert fakes.calls("kind load") == []


def test_an_image_docker_has_is_only_loaded(fakes: FakePrograms, tmp_path: Path) -> None:
    reference = KindCluster(Home(tmp_path)).images.ensure(OPERATOR)
    assert fakes.calls("docker build") == []
    assert fakes.calls("kind load") == [f"kind load docker-image --name finetune {reference}"]


def test_an_image_the_node_has_is_not_loaded_again(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("docker", {"ps --format": f"{NODE}\n"})
    reference = KindCluster(Home(tmp_path)).images.ensure(OPERATOR)
    assert fakes.calls("docker exec") == [f"docker exec {NODE} crictl inspecti {reference}"]
    assert fakes.calls("kind load") == []


REGISTRY = {"FINETUNE_REGISTRY": "registry.example.com/team"}


def test_a_named_cluster_is_read_and_never_written(fakes: FakePrograms, tmp_path: Path) -> None:
    cluster = ContextCluster(Home(tmp_path / "home"), "staging", REGISTRY)
    cluster.up(gpus=8)
    cluster.down()
    assert fakes.calls("kubectl config") == [
        "kubectl config get-contexts --output name",
        "kubectl config view --minify --flatten --context staging",
    ]
    assert all(" get --raw /readyz" in call for call in fakes.calls("kubectl --kubeconfig"))


def test_a_context_that_there_is_not_is_told_with_those_there_are(fakes: FakePrograms, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="KUBE_CONTEXT=stagin: the kubeconfig has no such context; it has: staging, kind-work"):
        ContextCluster(Home(tmp_path), "stagin", REGISTRY).up(gpus=0)


def test_a_kubectl_that_fails_is_not_told_as_a_missing_context(fakes: FakePrograms, tmp_path: Path) -> None:
    fakes.add("kubectl", {}, failures={"get-contexts": "error: yaml: line 3"})
    with pytest.raises(ClusterError, match="yaml: line 3"):
        ContextCluster(Home(tmp_path), "staging", REGISTRY).up(gpus=0)


def test_what_a_named_cluster_needs_is_asked_for_before_anything_is_built(
    fakes: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ClusterError, match="set FINETUNE_REGISTRY"):
        ContextCluster(Home(tmp_path), "staging", {}).up(gpus=0)
    fakes.add("docker", {}, failures={"info": "Cannot connect to the Docker daemon"})
    with pytest.raises(ClusterError, match="images are built by Docker on this machine") as raised:
        ContextCluster(Home(tmp_path), "kind-work", {}).up(gpus=0)
    assert "Cannot connect to the Docker daemon" in str(raised.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="kubectl is not installed or not on PATH"):
        ContextCluster(Home(tmp_path), "staging", REGISTRY).up(gpus=0)


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
