"""The guard in front of every test that changes a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import NoClusterError, find_kubeconfig

CONFIG = "apiVersion: v1\nkind: Config\ncurrent-context: production\n"


def test_own_cluster_is_found_without_any_setting(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(CONFIG)
    assert find_kubeconfig({"FINETUNE_HOME": str(tmp_path)}) == tmp_path / "kubeconfig"


def test_missing_cluster_is_told_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(NoClusterError, match="make cluster"):
        find_kubeconfig({"FINETUNE_HOME": str(tmp_path)})


@pytest.mark.parametrize("named", [None, "staging"])
def test_foreign_context_is_refused(tmp_path: Path, named: str | None) -> None:
    environment = _elsewhere(tmp_path)
    if named:
        environment["KUBE_CONTEXT"] = named
    with pytest.raises(NoClusterError, match="KUBE_CONTEXT=production"):
        find_kubeconfig(environment)


def test_foreign_context_is_used_when_named(tmp_path: Path) -> None:
    environment = _elsewhere(tmp_path)
    assert find_kubeconfig({**environment, "KUBE_CONTEXT": "production"}) == Path(environment["KUBECONFIG"])


def _elsewhere(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "elsewhere"
    config.write_text(CONFIG)
    return {"FINETUNE_HOME": str(tmp_path / "home"), "KUBECONFIG": str(config)}
