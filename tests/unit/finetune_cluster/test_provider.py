import dataclasses
from pathlib import Path

import pytest
import yaml

from finetune_cluster.errors import ClusterError, ExitCode, NoProviderError
from finetune_cluster.gobuild import KUBERNETES, kubernetes_version
from finetune_cluster.node.cluster import chosen_version
from finetune_cluster.provider import Machine, Provider, choose_provider, look_at_machine
from finetune_cluster.repository import repository_root

NOTHING = Machine(context="", docker_answers=False, is_linux=False, is_root=False)


@pytest.mark.parametrize(
    ("machine", "provider"),
    [
        (Machine(context="staging", docker_answers=True, is_linux=True, is_root=True), Provider.CONTEXT),
        (Machine(context="", docker_answers=True, is_linux=True, is_root=True), Provider.KIND),
        (Machine(context="", docker_answers=True, is_linux=False, is_root=False), Provider.KIND),
        (Machine(context="", docker_answers=False, is_linux=True, is_root=True), Provider.NODE),
    ],
)
def test_a_named_context_comes_before_docker_and_docker_before_a_node_of_the_machine(machine: Machine, provider: Provider) -> None:
    assert choose_provider(machine) is provider


@pytest.mark.parametrize(
    "machine",
    [
        NOTHING,
        Machine(context="", docker_answers=False, is_linux=True, is_root=False),
        Machine(context="", docker_answers=False, is_linux=False, is_root=True),
    ],
)
def test_without_any_provider_the_error_has_its_own_exit_code_and_names_the_way_out(machine: Machine) -> None:
    with pytest.raises(NoProviderError, match=r"make demo-local.*--local.*local runner") as raised:
        choose_provider(machine)
    assert raised.value.exit_code is ExitCode.NO_PROVIDER


ROOT_ON_LINUX = Machine(context="", docker_answers=False, is_linux=True, is_root=True)


@pytest.mark.parametrize(
    ("machine", "missing"),
    [
        (dataclasses.replace(ROOT_ON_LINUX, has_packages=False), "there is no apt-get"),
        (dataclasses.replace(ROOT_ON_LINUX, may_isolate=False), "the right to make mounts and networks"),
    ],
)
def test_root_alone_is_not_enough_for_a_node(machine: Machine, missing: str) -> None:
    """Fedora, or the root of an unprivileged container: the demo goes on without a cluster and says why."""
    with pytest.raises(NoProviderError, match=missing):
        choose_provider(machine)
    assert choose_provider(dataclasses.replace(machine, docker_answers=True)) is Provider.KIND


def test_the_right_to_make_mounts_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the machine does, not by what it is called."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("finetune_cluster.shell.search_path", lambda: str(tmp_path))
    for code in (0, 1):
        (tmp_path / "unshare").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / "unshare").chmod(0o755)
        assert look_at_machine({}).may_isolate is (code == 0)


@pytest.mark.parametrize("asked_for", ["kind", "node"])
def test_of_docker_and_the_node_the_user_can_ask_for_one(asked_for: str) -> None:
    machine = Machine(context="", docker_answers=True, is_linux=True, is_root=True, asked_for=asked_for)
    assert choose_provider(machine) == asked_for
    assert choose_provider(dataclasses.replace(machine, context="staging")) is Provider.CONTEXT


@pytest.mark.parametrize(("asked_for", "missing"), [("kind", "no Docker engine answers"), ("node", "needs root on Linux")])
def test_what_was_asked_for_is_not_replaced_by_something_else(asked_for: str, missing: str) -> None:
    other_is_possible = Machine(
        context="", docker_answers=asked_for == "node", is_linux=True, is_root=asked_for == "kind", asked_for=asked_for
    )
    with pytest.raises(NoProviderError, match=missing):
        choose_provider(other_is_possible)


def test_a_kind_of_cluster_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ClusterError, match="FINETUNE_CLUSTER=k3s is not one of kind, node"):
        choose_provider(dataclasses.replace(NOTHING, asked_for="k3s"))


def test_a_version_of_kubernetes_is_chosen_or_refused_by_name() -> None:
    assert chosen_version({}) == ""
    assert chosen_version({"FINETUNE_KUBERNETES": "1.32"}) == "1.32"
    with pytest.raises(ClusterError, match=r"FINETUNE_KUBERNETES=1\.31 is not one of 1\.32"):
        chosen_version({"FINETUNE_KUBERNETES": "1.31"})


def test_the_oldest_version_that_the_chart_supports_can_be_run() -> None:
    chart = yaml.safe_load((repository_root() / "helm/finetune-operator/Chart.yaml").read_text())
    oldest = chart["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
    assert kubernetes_version((KUBERNETES[oldest].source / "go.mod").read_text()).startswith(f"v{oldest}.")
