"""What the chart copies from elsewhere is equal to its source, and what it says of itself is true."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.constants import API_VERSION
from helm import readme, sync
from tests.unit.helm.chart import CHART, MATRIX, ROOT, Helm, Manifest, of_kind, one

CHART_YAML: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
CRDS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))}
PRESETS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds" / "presets").glob("*.yaml"))}


def test_copies_are_up_to_date() -> None:
    """If this fails: uv run python helm/sync.py."""
    assert sync.differences() == []


def test_readme_is_up_to_date() -> None:
    """If this fails: uv run python helm/readme.py."""
    assert (CHART / "README.md").read_text() == readme.rendered()


@pytest.mark.parametrize("name", CRDS)
def test_rendered_crds_are_the_generated_ones(default_manifests: list[Manifest], name: str) -> None:
    """Helm changes nothing in a CRD on its way to the cluster."""
    rendered = one(default_manifests, "CustomResourceDefinition", CRDS[name]["metadata"]["name"])
    assert rendered["spec"] == CRDS[name]["spec"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize("name", PRESETS)
def test_rendered_presets_are_the_shipped_ones(default_manifests: list[Manifest], name: str) -> None:
    """The same for presets (K-08)."""
    rendered = one(default_manifests, "ClusterFineTunePreset", PRESETS[name]["metadata"]["name"])
    assert rendered["spec"] == PRESETS[name]["spec"]
    assert PRESETS[name]["metadata"].get("annotations", {}).items() <= rendered["metadata"]["annotations"].items()


def test_switches_of_crds_and_presets(helm: Helm) -> None:
    """Install and keep do what they say."""
    kept = helm.template()
    assert len(of_kind(kept, "CustomResourceDefinition")) == len(CRDS)
    assert len(of_kind(kept, "ClusterFineTunePreset")) == len(PRESETS)
    dropped = helm.template(MATRIX["crds-not-kept"])
    for manifest in of_kind(dropped, "CustomResourceDefinition", "ClusterFineTunePreset"):
        assert "helm.sh/resource-policy" not in manifest["metadata"].get("annotations", {})
    none = helm.template(MATRIX["namespaced-without-cluster-role"])
    assert of_kind(none, "CustomResourceDefinition", "ClusterFineTunePreset", "Job") == []


def test_presets_wait_for_their_kind_once(helm: Helm) -> None:
    """Where the API server knows the kind they are ordinary objects; before that, hooks behind a Job that waits for it."""
    first = helm.template()
    later = helm.template(None, "--api-versions", f"{API_VERSION}/ClusterFineTunePreset")
    (wait,) = of_kind(first, "Job")
    for manifest in of_kind(first, "ClusterFineTunePreset"):
        annotations = manifest["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "post-install,post-upgrade"
        assert annotations["meta.helm.sh/release-name"] == "finetune"
        assert annotations["meta.helm.sh/release-namespace"] == "finetune-system"
        assert int(wait["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(annotations["helm.sh/hook-weight"])
    assert set(wait["spec"]["template"]["spec"]["containers"][0]["command"][6:]) == {
        crd["spec"]["names"]["plural"] for crd in CRDS.values()
    }
    assert of_kind(later, "Job") == []
    assert [m for m in of_kind(later, "ClusterFineTunePreset") if "helm.sh/hook" in m["metadata"]["annotations"]] == []


def test_sync_writes_and_removes(tmp_path: Path) -> None:
    """A new source appears, a changed one follows, a removed one goes; braces come through Helm untouched."""
    root, chart = tmp_path / "root", tmp_path / "chart"
    (root / "crds" / "presets").mkdir(parents=True)
    (root / "examples").mkdir()
    (root / "examples" / "tiny_model.py").write_text("MODEL = 1\n")
    crd = {"apiVersion": "v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a"}, "spec": {"text": "{{ braces }}"}}
    (root / "crds" / "a.yaml").write_text(yaml.safe_dump(crd))
    sync.write(chart, root)
    assert sync.differences(chart, root) == []
    assert '{{ "{{" }} braces }}' in (chart / "templates/crds/a.yaml").read_text()
    assert "MODEL = 1" in (chart / "files/test/tiny_model.py").read_text()
    (root / "crds" / "a.yaml").rename(root / "crds" / "b.yaml")
    assert sync.differences(chart, root) == ["templates/crds/a.yaml", "templates/crds/b.yaml"]
    sync.write(chart, root)
    assert [path.name for path in (chart / "templates/crds").iterdir()] == ["b.yaml"]


def test_readme_needs_a_description_for_every_value() -> None:
    """A value without a comment is an error that names it."""
    assert list(readme.values("# -- All of it.\na:\n  b: 1\n")) == [readme.Value("a", {"b": 1}, "All of it.")]
    with pytest.raises(readme.UndescribedError, match=r"a\.c has no description"):
        readme.table("a:\n  # -- One.\n  b: 1\n  c: 2\n")


def test_chart_metadata_is_true() -> None:
    """Versions, licence and kinds are those of the project."""
    operator = tomllib.loads((ROOT / "operator" / "pyproject.toml").read_text())["project"]
    assert CHART_YAML["appVersion"] == CHART_YAML["version"] == operator["version"]
    annotations = CHART_YAML["annotations"]
    assert annotations["artifacthub.io/license"] == operator["license"]
    listed = {(crd["name"], crd["kind"], crd["version"]) for crd in yaml.safe_load(annotations["artifacthub.io/crds"])}
    assert listed == {(c["metadata"]["name"], c["spec"]["names"]["kind"], c["spec"]["versions"][0]["name"]) for c in CRDS.values()}


def test_packages_without_leftovers(helm: Helm, tmp_path: Path) -> None:
    """The package holds the chart and nothing that Python left beside the scripts."""
    (archive,) = helm.run("package", str(CHART), "--destination", str(tmp_path)).split(": ")[1:]
    assert Path(archive.strip()).stat().st_size < 200_000
