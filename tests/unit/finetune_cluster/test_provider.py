import pytest
import yaml

from finetune_cluster.errors import ClusterError, ExitCode, NoProviderError
from finetune_cluster.gobuild import KUBERNETES, kubernetes_version
from finetune_cluster.node.cluster import chosen_version
from finetune_cluster.provider import Machine, Provider, choose_provider
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
    with pytest.raises(NoProviderError, match="local runner") as raised:
        choose_provider(machine)
    assert raised.value.exit_code is ExitCode.NO_PROVIDER


def test_a_version_of_kubernetes_is_chosen_or_refused_by_name() -> None:
    assert chosen_version({}) == ""
    assert chosen_version({"FINETUNE_KUBERNETES": "1.32"}) == "1.32"
    with pytest.raises(ClusterError, match=r"FINETUNE_KUBERNETES=1\.31 is not one of 1\.32"):
        chosen_version({"FINETUNE_KUBERNETES": "1.31"})


def test_the_oldest_version_that_the_chart_supports_can_be_run() -> None:
    chart = yaml.safe_load((repository_root() / "helm/finetune-operator/Chart.yaml").read_text())
    oldest = chart["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
    assert kubernetes_version((KUBERNETES[oldest].source / "go.mod").read_text()).startswith(f"v{oldest}.")
