"""The chart renders with every combination of its values, the same with Helm 3 and Helm 4."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.unit.helm.chart import CHART, MATRIX, NAMESPACE, Helm, Manifest, Values, of_kind, one

CLUSTER_KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ClusterFineTunePreset",
    "BaseModel",
    "GpuType",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
GENERATED = re.compile(r"^  (AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY): \S+$|^ +checksum/credentials: \S+$", re.MULTILINE)


@pytest.mark.parametrize("program", ["helm", "helm3"])
def test_lints_clean(helms: dict[str, Helm], program: str, case: tuple[str, Values]) -> None:
    """Helm lint --strict has nothing to say but that there is no icon."""
    said = helms[program].lint(case[1])
    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert [line for line in said.splitlines() if line.startswith("[") and "icon is recommended" not in line] == []


def test_both_helms_render_alike(rendered: dict[str, dict[str, str]], case: tuple[str, Values]) -> None:
    """Nothing depends on the version of Helm but generated credentials (and the order of objects)."""
    texts = {GENERATED.sub("", by_row[case[0]]) for by_row in rendered.values()}
    assert len({"".join(sorted(text.splitlines())) for text in texts}) == 1


def test_objects_are_well_formed(manifests: list[Manifest]) -> None:
    """Each object occurs once, has its namespace if it needs one, and the chart's labels."""
    keys = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(keys) == len(set(keys))
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert (manifest["kind"] in CLUSTER_KINDS) == ("namespace" not in metadata), manifest["kind"]
        assert len(metadata["name"]) <= 253
        assert metadata["labels"]["app.kubernetes.io/instance"] == "finetune"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert all(isinstance(value, str) and len(value) <= 63 for value in metadata["labels"].values())


def test_selectors_find_their_pods(manifests: list[Manifest]) -> None:
    """Deployments, Services and disruption budgets select pods of one Deployment."""
    pods = {m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"] for m in of_kind(manifests, "Deployment")}
    for deployment in of_kind(manifests, "Deployment"):
        assert deployment["spec"]["selector"]["matchLabels"].items() <= pods[deployment["metadata"]["name"]].items()
    selectors = [m["spec"]["selector"] for m in of_kind(manifests, "Service")]
    selectors += [m["spec"]["selector"]["matchLabels"] for m in of_kind(manifests, "PodDisruptionBudget")]
    for selector in selectors:
        assert len([name for name, labels in pods.items() if selector.items() <= labels.items()]) == 1


def test_services_name_existing_ports(manifests: list[Manifest]) -> None:
    """Every port of a Service is a named port of the container behind it."""
    ports = {
        m["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: {
            port["name"] for container in m["spec"]["template"]["spec"]["containers"] for port in container["ports"]
        }
        for m in of_kind(manifests, "Deployment")
    }
    for service in of_kind(manifests, "Service"):
        component = service["spec"]["selector"]["app.kubernetes.io/component"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[component]


def test_every_template_is_rendered_by_the_matrix(rendered: dict[str, dict[str, str]]) -> None:
    """The matrix of values leaves no template out."""
    lines = "".join(rendered["helm"].values()).splitlines()
    sources = {line.removeprefix("# Source: finetune-operator/") for line in lines if line.startswith("# Source: ")}
    assert sources == {str(path.relative_to(CHART)) for path in (CHART / "templates").rglob("*.yaml")}


def test_placement_and_overrides_reach_the_pods(helm: Helm) -> None:
    """What a platform engineer sets arrives where it belongs."""
    manifests = helm.template(MATRIX["everything-placed"])
    operator = one(manifests, "Deployment", "ml-finetune-operator")
    spec = operator["spec"]["template"]["spec"]
    assert operator["metadata"]["labels"]["team"] == "ml"
    assert operator["spec"]["replicas"] == 3
    assert spec["serviceAccountName"] == "own"
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"pool": "infra"}
    assert spec["tolerations"][0]["key"] == "infra"
    assert spec["topologySpreadConstraints"][0]["topologyKey"] == "topology.kubernetes.io/zone"
    assert "podAntiAffinity" in spec["affinity"]
    assert spec["imagePullSecrets"] == [{"name": "pull-a"}, {"name": "pull-b"}]
    assert spec["containers"][0]["image"] == "registry.example.com:5000/ml/finetune-operator:0.1.0"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert {"name": "TZ", "value": "UTC"} in spec["containers"][0]["env"]
    assert spec["containers"][0]["envFrom"] == [{"configMapRef": {"name": "more", "optional": True}}]
    assert operator["spec"]["template"]["metadata"]["annotations"]["extra.example.com/annotation"] == "yes"
    store = one(manifests, "Deployment", "ml-finetune-minio")["spec"]["template"]
    assert store["spec"]["nodeSelector"] == {"disk": "fast"}
    assert store["spec"]["priorityClassName"] == "high"
    assert store["metadata"]["labels"]["extra"] == "label"
    assert one(manifests, "PodDisruptionBudget", "ml-finetune-operator")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("given", "reference"),
    [
        ({}, "finetune-trainer:0.1.0"),
        ({"registry": "r.example.com/x/"}, "r.example.com/x/finetune-trainer:0.1.0"),
        ({"registry": "r.example.com", "trainer": "other/t:1"}, "other/t:1"),
        ({"trainer": "localhost:5000/t@sha256:" + "a" * 64}, "localhost:5000/t@sha256:" + "a" * 64),
    ],
)
def test_images_by_tag_or_digest(helm: Helm, given: Values, reference: str) -> None:
    """A full reference wins over the registry (L-11)."""
    operator = one(helm.template({"image": given}), "Deployment", "finetune-operator")
    environment = {v["name"]: v.get("value") for v in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["FINETUNE_OPERATOR_TRAINER_IMAGE"] == reference


@pytest.mark.parametrize(
    ("release", "prefix"), [("finetune", "finetune"), ("finetune-operator", "finetune"), ("prod", "prod-finetune"), ("x" * 53, "x" * 40)]
)
def test_object_names_follow_the_release(helm: Helm, release: str, prefix: str) -> None:
    """Names stay recognisable and short enough for what is derived from them."""
    service = ("--show-only", "templates/operator/service.yaml")
    assert f"\n  name: {prefix}-operator\n" in helm.run("template", release, str(CHART), "--kube-version", "1.32.0", *service)


def test_kubernetes_floor(helm: Helm) -> None:
    """Kubernetes 1.31 is refused: selectable fields and token claims came with 1.32."""
    with pytest.raises(AssertionError, match=r"requires kubeVersion: >=1\.32"):
        helm.run("template", "finetune", str(CHART), "--kube-version", "1.31.9")


def test_replicas_spread_over_nodes(helm: Helm, default_manifests: list[Manifest]) -> None:
    """Two operators on one node would be lost together; one operator has nothing to spread."""
    (constraint,) = one(helm.template({"operator": {"replicas": 2}}), "Deployment", "finetune-operator")["spec"]["template"]["spec"][
        "topologySpreadConstraints"
    ]
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert "topologySpreadConstraints" not in one(default_manifests, "Deployment", "finetune-operator")["spec"]["template"]["spec"]


@pytest.mark.parametrize("namespaces", [None, []])
def test_jobs_may_be_in_the_release_namespace_alone(helm: Helm, namespaces: list[str] | None) -> None:
    """Whether the list is empty or taken away."""
    secrets = of_kind(helm.template({"jobNamespaces": namespaces}), "Secret")
    assert {secret["metadata"]["namespace"] for secret in secrets} == {NAMESPACE}


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_example_values_render(helm: Helm, values: Path) -> None:
    """The files `ct install` takes, and people start from."""
    assert of_kind(helm.template(yaml.safe_load(values.read_text(encoding="utf-8"))), "Deployment")


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "preferredDuringSchedulingIgnoredDuringExecution"),
        ({"antiAffinity": "required"}, "requiredDuringSchedulingIgnoredDuringExecution"),
        ({"antiAffinity": "none"}, None),
    ],
)
def test_replicas_stay_apart(helm: Helm, given: Values, kind: str | None) -> None:
    """High availability: no node holds both, as far as the administrator wants it."""

    def affinity(replicas: int) -> Manifest:
        deployment = one(helm.template({"operator": {"replicas": replicas, **given}}), "Deployment", "finetune-operator")
        return dict(deployment["spec"]["template"]["spec"].get("affinity", {}))

    assert affinity(1) == {}
    assert list(affinity(2).get("podAntiAffinity", {})) == ([kind] if kind else [])
    if kind:
        (term,) = affinity(2)["podAntiAffinity"][kind]
        term = term.get("podAffinityTerm", term)
        assert term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"


def test_annotations_for_artifact_hub() -> None:
    """Lists in annotations are YAML; the images are those of this version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    annotations = chart["annotations"]
    parsed = {name: yaml.safe_load(annotations[f"artifacthub.io/{name}"]) for name in ("images", "changes", "crds", "crdsExamples")}
    assert [image["image"].rpartition(":")[2] for image in parsed["images"]] == [chart["appVersion"]] * 3
    assert {change["kind"] for change in parsed["changes"]} <= {"added", "changed", "deprecated", "removed", "fixed", "security"}
    installed = {path.name.removesuffix(".yaml") for path in (CHART / "templates" / "crds").glob("*.yaml")}
    assert {crd["name"] for crd in parsed["crds"]} == installed
