"""The chart on a real API server and with real pods: installed with Helm 4 and Helm 3, upgraded, used, uninstalled.

Releases here work in their own namespace only (or run no operator at all) and leave CRDs of another release alone, so that one installed by
somebody else stays as it is.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from minio import Minio
from prometheus_client.parser import text_string_to_metric_families

from finetune_api.contract.metrics import PROGRESS_POSTS
from finetune_api.models.status import Phase
from tests.support.install import image_references
from tests.support.jobs import make_job
from tests.support.platform import Kubectl, eventually
from tests.unit.helm.chart import CHART, MATRIX, RELEASE, Helm, HelmError, Values, helm_programs, of_kind

pytestmark = pytest.mark.integration
KINDS = ("finetunejobs", "finetunepresets", "datasets", "budgets", "clusterfinetunepresets", "trainingmethods", "basemodels", "gputypes")
CRDS = [f"{plural}.finetune.dev" for plural in KINDS]
SHIPPED = {
    plural: {path.stem for path in (CHART / "templates" / folder).glob("*.yaml")}
    for plural, folder in (("clusterfinetunepresets", "presets"), ("basemodels", "basemodels"), ("gputypes", "gputypes"))
}
"""Objects that the chart brings, by the plural of their kind."""
GUARDED = {Phase.STARTING, Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.PAUSING, Phase.RESUMING, Phase.STOPPING}
TAKE_OVER = {"helm": ("--take-ownership", "--force-conflicts"), "helm3": ("--take-ownership",)}
"""CRDs and presets of the cluster may belong to another release, and other tests may have written to them."""
OWNER, OWNER_NAME = "meta.helm.sh/release-namespace", "meta.helm.sh/release-name"
ALLOW = "finetune.dev/allow-delete-running"
NO_STORE: Values = {"embedded": {"enabled": False}, "external": {"bucket": "nobody-asks"}}


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own."""

    helm: Helm
    kubectl: Kubectl
    values: Values

    def apply(self, changes: Values | None = None) -> str:
        """Install, or upgrade with changed values."""
        values = {**self.values, **(changes or {})}
        flags = ("--namespace", self.kubectl.namespace, "--wait", "--timeout", "5m", *TAKE_OVER[self.helm.program.name])
        return self.helm.run("upgrade", "--install", RELEASE, str(CHART), *flags, values=values)

    def uninstall(self) -> str:
        """Remove the release; what is said tells what was kept."""
        return self.helm.run("uninstall", RELEASE, "--namespace", self.kubectl.namespace, "--wait", "--timeout", "3m")

    def data(self, secret: str) -> dict[str, str]:
        """Decoded keys of a Secret."""
        found = self.kubectl.get("secret", secret)
        assert found is not None, secret
        return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}

    def pods(self) -> dict[str, str]:
        """Uid and restarts of each pod of the release's Deployments, by component."""
        pods = self.kubectl.items("pods", f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component in (operator,store)")
        return {
            pod["metadata"]["labels"][
                "app.kubernetes.io/component"
            ]: f"{pod['metadata']['uid']} {pod['status']['containerStatuses'][0]['restartCount']}"
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
        }


@pytest.fixture(scope="module")
def admin(kubeconfig: Path) -> Kubectl:
    """The cluster's administrator."""
    return Kubectl(kubeconfig)


@pytest.fixture(scope="module")
def kinds(admin: Kubectl, crds: None) -> Iterator[Values]:
    """Values by which a release brings CRDs, presets and base models, unless they belong to a release of somebody else.

    What was taken over is let go at the end.
    """

    def owners() -> dict[tuple[str, str], str]:
        found = [("crd", item) for item in admin.items("crd") if item["metadata"]["name"] in CRDS]
        found += [(plural, item) for plural in SHIPPED for item in admin.items(plural)]
        return {(kind, item["metadata"]["name"]): item["metadata"].get("annotations", {}).get(OWNER, "") for kind, item in found}

    before = owners()
    free = all(not owner or owner.startswith("chart-") for owner in before.values())
    yield {name: {"install": free} for name in ("crds", "presets", "baseModels", "gpuTypes")}
    for (kind, name), owner in owners().items():
        if owner.startswith("chart-") and kind in SHIPPED and (kind, name) not in before:
            admin("delete", kind, name)
        elif owner.startswith("chart-"):
            admin("annotate", kind, name, f"{OWNER}-", f"{OWNER_NAME}-")


@pytest.fixture(scope="module")
def images() -> Mapping[str, str]:
    """Images of this checkout."""
    return image_references()


def new_namespace(admin: Kubectl, name: str) -> Kubectl:
    """An empty namespace under Pod Security restricted."""
    admin.run("delete", "namespace", name, "--ignore-not-found", "--wait=true")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return admin.within(name)


def bound(program: str, admin: Kubectl) -> Helm:
    """A Helm program that speaks to the cluster under test."""
    return replace(helm_programs()[program], environment=admin.environment)


@pytest.fixture(scope="module", params=["helm", "helm3"])
def release(
    request: pytest.FixtureRequest, admin: Kubectl, images: Mapping[str, str], kinds: Values, no_other_operator: None
) -> Iterator[Release]:
    """The chart with operator and store, in namespaced mode, once by each Helm: with the read-only ClusterRole, and without."""
    kubectl = new_namespace(admin, f"chart-{request.param}")
    values = {
        **kinds,
        "image": dict(images),
        "jobNamespaces": [kubectl.namespace],
        "rbac": {"namespaced": True, "clusterReads": request.param == "helm"},
        "storage": {"embedded": {"persistence": {"size": "1Gi"}}},
    }
    made = Release(bound(request.param, admin), kubectl, values)
    made.apply()
    yield made
    if RELEASE in made.helm.run("list", "--namespace", kubectl.namespace, "--short"):
        made.uninstall()
    admin("delete", "namespace", kubectl.namespace, "--wait=false")


def assert_shipped(kubectl: Kubectl) -> None:
    """All that the chart brings is there."""
    for plural, names in SHIPPED.items():
        assert {item["metadata"]["name"] for item in kubectl.items(plural)} >= names


def test_installs_and_runs(release: Release) -> None:
    """Operator and store are ready under Pod Security restricted; the operator has filled the one Secret it may."""
    assert set(release.pods()) == {"operator", "store"}
    assert {"tls.crt", "tls.key"} <= release.data("finetune-operator-tls").keys()
    assert_shipped(release.kubectl)


def test_store_has_its_bucket_and_keeps_what_is_in_it(release: Release) -> None:
    """The credentials of the jobs open the bucket; a new pod of the store finds the old objects (L-05)."""
    keys = release.data("finetune-storage")

    def store(port: int) -> Minio:
        return Minio(f"127.0.0.1:{port}", keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], secure=False)

    with release.kubectl.port_forward("service/finetune-minio", 9000) as port:
        assert [bucket.name for bucket in store(port).list_buckets()] == ["finetune"]
        store(port).put_object("finetune", "kept", io.BytesIO(b"1"), 1)
    release.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=store", "--wait=true")
    release.kubectl("rollout", "status", "deployment/finetune-minio", "--timeout=120s")
    with release.kubectl.port_forward("service/finetune-minio", 9000) as port:
        assert [item.object_name for item in store(port).list_objects("finetune")] == ["kept"]


def test_helm_test_trains_a_tiny_model(release: Release) -> None:
    """`helm test` makes its own model and data, trains, and leaves no job behind."""
    try:
        release.helm.run("test", RELEASE, "--namespace", release.kubectl.namespace, "--timeout", "12m")
    except HelmError as error:
        logs = release.kubectl.run("logs", "finetune-test", "--all-containers", check=False).stdout
        jobs = release.kubectl.run("get", "finetunejobs,jobs,pods", "-o", "wide", check=False).stdout
        raise AssertionError(f"{error}\n{logs}\n{jobs}") from error
    assert release.kubectl.items("finetunejobs") == []


def test_the_trainer_s_reports_were_accepted(release: Release) -> None:
    """Its token was reviewed by the API server, or without the ClusterRole verified with the API server's public keys."""
    with (
        release.kubectl.port_forward("deployment/finetune-operator", 8080) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page,
    ):
        text = page.read().decode()
    posts = {
        sample.labels["code"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == PROGRESS_POSTS and sample.value
    }
    assert "200" in posts
    assert not posts & {"401", "403"}


def test_upgrade_changes_nothing_that_runs(release: Release) -> None:
    """Credentials and certificate stay; no pod restarts; presets are changed in place, so that no job misses its preset for a moment."""
    secrets = {name: release.data(name) for name in ("finetune-storage", "finetune-operator-tls")}
    pods = release.pods()
    presets = {item["metadata"]["uid"] for item in release.kubectl.items("clusterfinetunepresets")}
    release.apply()
    assert {name: release.data(name) for name in secrets} == secrets
    assert release.pods() == pods
    assert {item["metadata"]["uid"] for item in release.kubectl.items("clusterfinetunepresets")} == presets


def test_notes_copy_the_credentials(release: Release, admin: Kubectl) -> None:
    """The command the notes print for another namespace does it."""
    notes = release.helm.run("get", "notes", RELEASE, "--namespace", release.kubectl.namespace)
    match = re.search(r"kubectl get secret .*?/dev/stdin", notes, re.DOTALL)
    assert match is not None
    other = new_namespace(admin, f"{release.kubectl.namespace}-other")
    command = match[0].replace("NAMESPACE", other.namespace)
    subprocess.run(["bash", "-ec", command], check=True, capture_output=True, env=admin.environment, timeout=60)
    assert replace(release, kubectl=other).data("finetune-storage") == release.data("finetune-storage")
    admin("delete", "namespace", other.namespace, "--wait=false")


def test_operator_reads_no_secret_but_its_own(release: Release) -> None:
    """The API server confirms what the roles say (X-02)."""
    user = f"--as=system:serviceaccount:{release.kubectl.namespace}:finetune-operator"

    def may(verb: str, what: str, *flags: str) -> bool:
        return release.kubectl.run("auth", "can-i", verb, what, user, *flags, check=False).stdout.strip() == "yes"

    assert may("patch", "secrets/finetune-operator-tls")
    assert may("patch", "finetunejobs", "--subresource=status")
    assert all(may(verb, "datasets.finetune.dev") for verb in ("get", "list", "watch"))
    assert may("patch", "datasets.finetune.dev", "--subresource=status")
    assert all(may(verb, "budgets.finetune.dev") for verb in ("get", "list", "watch"))
    assert may("patch", "budgets.finetune.dev", "--subresource=status")
    assert not any(may(verb, "budgets.finetune.dev") for verb in ("create", "patch", "update", "delete"))
    assert not any(may(verb, "datasets.finetune.dev") for verb in ("create", "update", "delete"))
    assert (
        may("get", "clusterfinetunepresets")
        == may("get", "basemodels")
        == may("get", "gputypes")
        == may("list", "gputypes")
        == may("create", "tokenreviews")
        == release.values["rbac"]["clusterReads"]
    )
    assert not any(may(verb, "secrets") for verb in ("list", "watch", "create"))
    assert not may("get", "secrets/finetune-storage")
    assert not may("list", "finetunejobs", "--all-namespaces")
    assert not may("list", "pods", "--namespace=kube-system")


def test_uninstall_keeps_jobs_presets_and_data(release: Release) -> None:
    """What would cost work to lose outlives the release; nothing else does."""
    release.kubectl.apply(make_job("survivor", {"suspend": True}))
    release.uninstall()
    assert {item["metadata"]["name"] for item in release.kubectl.items("crd")} >= set(CRDS)
    assert_shipped(release.kubectl)
    assert [item["metadata"]["name"] for item in release.kubectl.items("persistentvolumeclaims")] == ["finetune-minio"]
    assert [item["metadata"]["name"] for item in release.kubectl.items("finetunejobs")] == ["survivor"]
    assert (
        release.kubectl.items("deployments,services,secrets,roles,rolebindings,serviceaccounts", f"app.kubernetes.io/instance={RELEASE}")
        == []
    )
    release.kubectl("delete", "finetunejob", "survivor")


@pytest.fixture(scope="module")
def policy(admin: Kubectl, images: Mapping[str, str], kinds: Values) -> Iterator[Kubectl]:
    """The policy and user roles of a release without an operator, and a namespace for jobs nobody acts on.

    Where no job of anybody is in the way the CRDs go first: this is the first installation on a cluster, whose presets are made by hooks.
    """
    if kinds["crds"]["install"] and not admin("get", "finetunejobs", "--all-namespaces", "-o", "name"):
        admin("delete", "crd", *CRDS, "--wait=true", "--timeout=60s")
    kubectl = new_namespace(admin, "chart-policy")
    values = {**kinds, "image": dict(images), "jobNamespaces": [], "operator": {"replicas": 0}, "storage": NO_STORE}
    made = Release(bound("helm", admin), kubectl, values)
    made.apply()
    jobs = new_namespace(admin, "chart-policy-jobs")
    jobs.apply(make_job("job"))
    yield jobs
    made.uninstall()
    for namespace in (jobs.namespace, kubectl.namespace):
        admin("delete", "namespace", namespace, "--wait=false")


def deleted(jobs: Kubectl, phase: str, annotation: str | None = None) -> str:
    """What is said to the deletion of a job in a phase; nothing is really deleted."""
    jobs("annotate", "finetunejob", "job", "--overwrite", f"{ALLOW}={annotation}" if annotation else f"{ALLOW}-")
    jobs("patch", "finetunejob", "job", "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"phase": phase}}))
    return jobs.run("delete", "finetunejob", "job", "--dry-run=server", check=False).stderr.strip()


def is_judged(jobs: Kubectl, phase: str, *, refused: bool) -> bool:
    """Whether the deletion of a job in a phase is refused, or let through, as it should be."""
    return bool(deleted(jobs, phase)) == refused


def test_first_installation_brings_presets_and_base_models(policy: Kubectl) -> None:
    """Kinds and objects of these kinds come with one command (K-08, C-08, AC-33)."""
    assert_shipped(policy)


def test_running_jobs_cannot_be_deleted(policy: Kubectl) -> None:
    """The refusal names the job, its phase and both ways out; a finished or resting job goes (Q-09, AC-03)."""
    refusal = eventually(lambda: deleted(policy, Phase.TRAINING), within=60, what="the policy is in force")
    for part in ("chart-policy-jobs/job is Training", '"desiredState":"Stopped"', "finetune.dev/allow-delete-running=true"):
        assert part in refusal
    for phase in Phase:
        # An operator of somebody else's release may put the phase right between the two requests: then once more.
        eventually(partial(is_judged, policy, phase, refused=phase in GUARDED), within=10, what=f"deletion in {phase}")


def test_the_annotation_lets_a_running_job_go(policy: Kubectl) -> None:
    """Only with the value true."""
    eventually(lambda: deleted(policy, Phase.TRAINING), within=60, what="the policy is in force")
    assert "denied request" in deleted(policy, Phase.TRAINING, "false")
    assert deleted(policy, Phase.TRAINING, "true") == ""


def test_a_namespace_takes_its_running_jobs_along(policy: Kubectl, admin: Kubectl) -> None:
    """The policy does not hold up the namespace controller."""
    eventually(lambda: deleted(policy, Phase.TRAINING), within=60, what="the policy is in force")
    doomed = new_namespace(admin, "chart-policy-doomed")
    doomed.apply(make_job("job"))
    doomed("patch", "finetunejob", "job", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Training"}}')
    admin("delete", "namespace", doomed.namespace, "--wait=true", "--timeout=90s")


def test_users_get_what_their_namespace_role_says(policy: Kubectl) -> None:
    """The chart's roles are part of view, edit and admin (AA-01, AA-02)."""
    for role in ("view", "edit"):
        policy("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er")

    def may(user: str, verb: str, what: str, *flags: str) -> bool:
        return policy.run("auth", "can-i", verb, what, f"--as={user}", *flags, check=False).stdout.strip() == "yes"

    eventually(lambda: may("viewer", "list", "finetunejobs"), within=60, what="roles are aggregated")
    assert not may("viewer", "create", "finetunejobs")
    eventually(lambda: may("editer", "create", "finetunejobs"), within=60, what="roles are aggregated")
    assert may("editer", "update", "finetunejobs", "--subresource=scale")
    assert not may("editer", "patch", "finetunejobs", "--subresource=status")
    assert not any(may("editer", "create", plural) for plural in SHIPPED)


@pytest.mark.parametrize("case", MATRIX)
def test_the_api_server_accepts_every_object(policy: Kubectl, admin: Kubectl, case: str) -> None:
    """Strict validation by the API server itself, for every row of the matrix of values."""
    values = {**MATRIX[case], "jobNamespaces": [policy.namespace]}
    manifests = bound("helm", admin).template(values, namespace=policy.namespace)
    for pod in of_kind(manifests, "Pod"):
        pod["spec"]["serviceAccountName"] = "default"  # the API server looks for the account even in a dry run
    for manifest in manifests:
        if "namespace" in manifest["metadata"]:
            manifest["metadata"]["namespace"] = policy.namespace  # dashboards may be meant for a namespace that is not here
    foreign = of_kind(manifests, "ServiceMonitor", "PodMonitor", "PrometheusRule", "GrafanaDashboard")
    documents = yaml.safe_dump_all(manifest for manifest in manifests if manifest not in foreign)
    flags = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    policy("apply", *flags, "-f", "-", stdin=documents)
