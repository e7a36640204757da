import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_cluster import clusters
from finetune_cluster.cli import app
from finetune_cluster.errors import ExitCode
from finetune_cluster.provider import Machine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run commands with an empty folder, on a machine that can hold no cluster."""
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    bare = Machine(context="", docker_answers=False, is_linux=True, is_root=False)
    monkeypatch.setattr(clusters, "look_at_machine", lambda environment: bare)
    return tmp_path


@pytest.mark.parametrize("command", [["up"], ["down"], ["status"], ["env"], ["images", "operator"]])
def test_where_no_cluster_is_possible_every_command_ends_with_the_documented_code(home: Path, command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ExitCode.NO_PROVIDER
    assert "no cluster is possible here" in result.stderr
    assert result.stdout == ""


def test_the_kubeconfig_of_a_cluster_that_is_not_there_has_a_code_of_its_own(home: Path) -> None:
    result = CliRunner().invoke(app, ["kubeconfig"])
    assert result.exit_code == ExitCode.NOT_RUNNING
    assert "finetune-cluster up" in result.stderr


def test_the_path_of_the_kubeconfig_is_all_that_is_printed(home: Path) -> None:
    (home / "kubeconfig").touch()
    result = CliRunner().invoke(app, ["kubeconfig"])
    assert (result.exit_code, result.stdout) == (0, f"{home}/kubeconfig\n")


def test_after_env_the_plugin_of_kubectl_is_on_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`eval "$(finetune-cluster env)"; kubectl finetune ...` needs no uv and no installation."""
    named = Machine(context="staging", docker_answers=False, is_linux=True, is_root=False)
    monkeypatch.setattr(clusters, "look_at_machine", lambda environment: named)
    exports = CliRunner().invoke(app, ["env"]).stdout
    path = subprocess.run(
        ["sh", "-c", f"{exports}command -v kubectl-finetune && kubectl-finetune --help"], capture_output=True, text=True, check=False
    )
    assert path.stdout.startswith(f"{home}/bin/kubectl-finetune\n")
    assert "FineTuneJobs" in path.stdout


@pytest.mark.parametrize(("command", "known"), [(["images", "trainr"], "trainer"), (["tools", "hlem"], "helm")])
def test_an_unknown_name_is_refused_with_the_known_ones(home: Path, command: list[str], known: str) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ExitCode.FAILED
    assert command[-1] in result.stderr
    assert known in result.stderr


@pytest.mark.parametrize("tool", ["kind", "helm"])
def test_a_tool_that_go_builds_says_how_to_have_go_where_it_cannot_be_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.delenv("UV", raising=False)
    result = CliRunner().invoke(app, ["tools", tool])
    assert result.exit_code == ExitCode.NO_PROVIDER
    assert "Go 1.26 or newer builds the cluster's programs, and there is none on PATH: install it, or uv" in result.stderr


def test_a_package_of_debian_is_named_where_there_is_no_apt(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home / "bin"))
    result = CliRunner().invoke(app, ["tools", "prometheus"])
    assert result.exit_code == ExitCode.FAILED
    assert "install prometheus, promtool by hand" in result.stderr
    for name in ("prometheus", "promtool"):
        (home / "bin").mkdir(exist_ok=True)
        (home / "bin" / name).touch(mode=0o755)
    result = CliRunner().invoke(app, ["tools", "prometheus"])
    assert (result.exit_code, result.stdout) == (0, f"{home}/bin/prometheus\n")
