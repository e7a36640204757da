import re
from pathlib import Path

import pytest

from finetune_cluster.errors import ClusterError
from finetune_cluster.gobuild import GoProgram, kubernetes_version, link_names
from finetune_cluster.tools import TOOLS


def test_the_version_of_kubernetes_is_read_from_the_module_and_not_from_its_staging_parts() -> None:
    go_mod = "require (\n\tk8s.io/api v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)\nreplace k8s.io/api => k8s.io/api v0.36.3\n"
    assert kubernetes_version(go_mod) == "v1.36.3"


def test_a_module_without_kubernetes_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"k8s\.io/kubernetes"):
        kubernetes_version("module x\n")


def test_names_follow_the_newest_build(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    link_names(old, ["kubectl", "kubelet"], tmp_path / "bin")
    link_names(new, ["kubectl"], tmp_path / "bin")
    assert (tmp_path / "bin" / "kubectl").read_text() == "new"
    assert (tmp_path / "bin" / "kubelet").read_text() == "old"


@pytest.mark.parametrize(
    "program", [tool for tool in TOOLS.values() if isinstance(tool, GoProgram) and tool.package != "."], ids=lambda tool: tool.name
)
def test_what_is_built_of_another_module_is_pinned(program: GoProgram) -> None:
    """The module's own file names the version that is built, and go.sum what was downloaded."""
    required = re.findall(r"^\s*(\S+\.\S+/\S+) (v\S+)(?: // indirect)?$", (program.source / "go.mod").read_text(), re.MULTILINE)
    ((module, version),) = [(module, version) for module, version in required if f"{program.package}/".startswith(f"{module}/")]
    assert f"{module} {version} h1:" in (program.source / "go.sum").read_text()
