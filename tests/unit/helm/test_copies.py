"""What the chart copies from elsewhere is equal to its source, and what it says of itself is true."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.constants import API_VERSION
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_api.models.partial import validate_gpu_type
from helm import readme, sync
from tests.unit.helm.chart import CHART, MATRIX, ROOT, Helm, Manifest, of_kind, one

CHART_YAML: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
CRDS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))}
SHIPPED = [path for folder in ("presets", "basemodels", "gputypes") for path in sorted((ROOT / "crds" / folder).glob("*.yaml"))]
SHIPPED_KINDS = ("ClusterFineTunePreset", "BaseModel", "GpuType")


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


@pytest.mark.parametrize("source", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rendered_objects_are_the_shipped_ones(default_manifests: list[Manifest], source: Path) -> None:
    """The same for presets (K-08), base models (C-08, C-09) and GPU types (L-02)."""
    shipped = yaml.safe_load(source.read_text())
    rendered = one(default_manifests, shipped["kind"], shipped["metadata"]["name"])
    assert rendered["spec"] == shipped["spec"]
    assert shipped["metadata"].get("annotations", {}).items() <= rendered["metadata"]["annotations"].items()


def test_the_eight_models_have_the_right_type(default_manifests: list[Manifest]) -> None:
    """AC-33: six LLM, two VLM, and beside them the one stored in 4 bits (C-09)."""
    types = [model["spec"]["type"] for model in of_kind(default_manifests, "BaseModel") if "4bit" not in model["metadata"]["name"]]
    assert (types.count("LLM"), types.count("VLM")) == (6, 2)
    assert len(of_kind(default_manifests, "BaseModel")) == 9


def test_switches_of_crds_and_shipped_objects(helm: Helm) -> None:
    """Install and keep do what they say."""
    kept = helm.template()
    assert len(of_kind(kept, "CustomResourceDefinition")) == len(CRDS)
    assert len(of_kind(kept, *SHIPPED_KINDS)) == len(SHIPPED)
    dropped = helm.template(MATRIX["crds-not-kept"])
    for manifest in of_kind(dropped, "CustomResourceDefinition", *SHIPPED_KINDS):
        assert "helm.sh/resource-policy" not in manifest["metadata"].get("annotations", {})
    none = helm.template(MATRIX["namespaced-without-cluster-role"])
    assert of_kind(none, "CustomResourceDefinition", *SHIPPED_KINDS, "Job") == []
    assert of_kind(helm.template({"baseModels": {"install": False}}), "BaseModel") == []
    assert of_kind(helm.template({"gpuTypes": {"install": False}}), "GpuType") == []
    assert of_kind(helm.template({"presets": {"install": False}}), "ClusterFineTunePreset") == []


def test_shipped_objects_wait_for_their_kind_once(helm: Helm) -> None:
    """Where the API server knows the kind they are ordinary objects; before that, hooks behind a Job that waits for it."""
    first = helm.template()
    served = [word for kind in SHIPPED_KINDS for word in ("--api-versions", f"{API_VERSION}/{kind}")]
    later = helm.template(None, *served)
    (wait,) = of_kind(first, "Job")
    for manifest in of_kind(first, *SHIPPED_KINDS):
        annotations = manifest["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "post-install,post-upgrade"
        assert annotations["meta.helm.sh/release-name"] == "finetune"
        assert annotations["meta.helm.sh/release-namespace"] == "finetune-system"
        assert int(wait["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(annotations["helm.sh/hook-weight"])
    assert set(wait["spec"]["template"]["spec"]["containers"][0]["command"][6:]) == {
        crd["spec"]["names"]["plural"] for crd in CRDS.values()
    }
    assert of_kind(later, "Job") == []
    assert [m for m in of_kind(later, *SHIPPED_KINDS) if "helm.sh/hook" in m["metadata"]["annotations"]] == []


def test_a_release_that_brings_a_kind_waits_for_that_one(helm: Helm) -> None:
    """An upgrade from a version without the catalogues: its presets are there, its models and GPUs are made after their kinds."""
    upgrade = helm.template(None, "--api-versions", f"{API_VERSION}/ClusterFineTunePreset")
    hooks = {m["kind"] for m in upgrade if "helm.sh/hook" in m["metadata"].get("annotations", {})}
    assert (hooks & {*SHIPPED_KINDS}, len(of_kind(upgrade, "Job"))) == ({"BaseModel", "GpuType"}, 1)
    neither = {"baseModels": {"install": False}, "gpuTypes": {"install": False}}
    without = helm.template(neither, "--api-versions", f"{API_VERSION}/ClusterFineTunePreset")
    assert of_kind(without, "Job") == []


def test_gpu_types_cost_what_the_values_say(helm: Helm) -> None:
    """L-02: prices are the installation's, as text or number."""
    rates = {"gpuTypes": {"hourlyRates": {"h100": "2.50", "l4": 0.8, "t4": 0}, "currency": "EUR"}}
    specs = {each["metadata"]["name"]: each["spec"] for each in of_kind(helm.template(rates), "GpuType")}
    priced = {name: (spec["hourlyRate"], spec["currency"]) for name, spec in specs.items() if "hourlyRate" in spec}
    assert priced == {"h100": ("2.50", "EUR"), "l4": ("0.8", "EUR"), "t4": ("0", "EUR")}
    for spec in specs.values():
        validate_gpu_type(spec)
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["gpuTypes"]["properties"]["hourlyRates"]["properties"]) == set(SHIPPED_GPU_TYPES)


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
