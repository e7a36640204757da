import pytest

from finetune_cluster.errors import ExitCode, NoProviderError
from finetune_cluster.provider import Machine, Provider, choose_provider

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
