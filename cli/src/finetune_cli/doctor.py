"""What a cluster needs for jobs to run, looked at with the rights of the person who asks (Z-01)."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from rich.table import Table
from rich.text import Text

from finetune_api.constants import (
    API_VERSION,
    BASE_MODEL_PLURAL,
    CLUSTER_PRESET_PLURAL,
    DATASET_PLURAL,
    DEFAULT_STORE_SECRET,
    GPU_RESOURCE,
    GPU_TYPE_PLURAL,
    GROUP,
    METHOD_PLURAL,
    PLURAL,
    PRESET_PLURAL,
    VERSION,
)
from finetune_api.presets import SHIPPED
from finetune_cli.installation import OPERATOR, looks_after, settings_of
from finetune_cli.models import may_be_trained
from finetune_cli.nodes import allocatable, held, takes_pods
from finetune_cli.terminal import counted, list_table

KINDS: Final = frozenset({PLURAL, PRESET_PLURAL, CLUSTER_PRESET_PLURAL, METHOD_PLURAL, BASE_MODEL_PLURAL, DATASET_PLURAL, GPU_TYPE_PLURAL})
OLDEST_KUBERNETES: Final = (1, 32)
STORE_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
POLL_SECONDS: Final = 0.5
NAMED_NODES: Final = 8

Document = Mapping[str, Any]


class Verdict(StrEnum):
    """What a finding means for jobs."""

    OK = "ok"
    WARN = "warn"
    """Jobs run, or it cannot be told; something is not as it could be."""
    FAIL = "fail"
    """Jobs do not run."""


STYLE: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


class Finding(NamedTuple):
    """What one check found."""

    verdict: Verdict
    subject: str
    says: str
    remedy: str = ""


class Reply(NamedTuple):
    """What the API server answers."""

    code: int
    body: Document


class Ask(Protocol):
    """Asks the API server."""

    def __call__(self, path: str, body: Document | None = None, **query: str) -> Reply:
        """GET a path, or POST ``body`` to it; a refusal (4xx) is a reply."""


def examine(ask: Ask, namespace: str, own_version: str, pause: Callable[[float], None] = time.sleep) -> Iterator[Finding]:
    """Every check, from the API server to the namespace in which jobs shall run.

    ``own_version``: of the command line. ``pause``: waits for some seconds, between two looks at the leader's Lease.
    """
    yield check_server(ask)
    kinds = check_kinds(ask)
    yield kinds
    reply = ask("/apis/apps/v1/deployments", labelSelector=OPERATOR)
    found: Sequence[Document] = reply.body.get("items") or () if reply.code == 200 else ()
    yield from check_operators(reply, namespace, own_version)
    for deployment in found:
        yield check_lease(ask, deployment, pause)
    yield check_gpus(ask)
    yield from check_namespace(ask, namespace)
    yield check_store(ask, namespace, next((settings_of(each).get("STORAGE_SECRET") for each in found), None) or DEFAULT_STORE_SECRET)
    if kinds.verdict is Verdict.OK:
        yield check_presets(ask)
        yield check_base_models(ask)


def check_server(ask: Ask) -> Finding:
    """Whether this Kubernetes is new enough."""
    version = ask("/version").body
    number = tuple(int("".join(filter(str.isdigit, str(version.get(part, "0")))) or 0) for part in ("major", "minor"))
    oldest = ".".join(map(str, OLDEST_KUBERNETES))
    if number < OLDEST_KUBERNETES:
        return Finding(
            Verdict.FAIL, "Kubernetes", f"{version.get('gitVersion')} is older than {oldest}", f"Upgrade the cluster to {oldest}."
        )
    return Finding(Verdict.OK, "Kubernetes", str(version.get("gitVersion")))


def check_kinds(ask: Ask) -> Finding:
    """Whether the API server serves all kinds in the version that is spoken here."""
    reply = ask(f"/apis/{API_VERSION}")
    served = {str(each["name"]) for each in reply.body.get("resources") or ()} if reply.code == 200 else set()
    missing = sorted(KINDS - served)
    if not missing:
        return Finding(Verdict.OK, "CRDs", f"all {len(KINDS)} kinds of {API_VERSION} are served")
    versions = [str(each["version"]) for each in ask(f"/apis/{GROUP}").body.get("versions") or ()]
    if versions and VERSION not in versions:
        return Finding(
            Verdict.FAIL, "CRDs", f"{GROUP} is served as {', '.join(versions)}, not as {VERSION}", "Use kubectl finetune of that version."
        )
    names = ", ".join(f"{plural}.{GROUP}" for plural in missing)
    return Finding(Verdict.FAIL, "CRDs", f"not served: {names}", "Install or upgrade the chart finetune-operator, which brings them.")


def check_operators(reply: Reply, namespace: str, own_version: str) -> Iterator[Finding]:
    """Whether an operator is there, ready, of this version, and looks after the namespace. ``reply``: all Deployments of operators."""
    if reply.code != 200:
        yield _not_readable("Operator", "the Deployments of the cluster")
        return
    found: Sequence[Document] = reply.body.get("items") or ()
    if not found:
        yield Finding(
            Verdict.FAIL,
            "Operator",
            "no Deployment of finetune-operator in any namespace",
            "Install the chart finetune-operator (README, Install).",
        )
    for deployment in found:
        yield _readiness(deployment)
        yield _version(deployment, own_version)
    if found and not any(looks_after(settings_of(each), namespace) for each in found):
        yield Finding(
            Verdict.FAIL,
            "Operator",
            f"no operator looks after namespace {namespace}",
            f"Have the administrator add {namespace} to the chart's jobNamespaces.",
        )


def _readiness(deployment: Document) -> Finding:
    ready, wanted = (deployment.get("status") or {}).get("readyReplicas", 0), deployment["spec"].get("replicas", 1)
    verdict = Verdict.FAIL if not ready else Verdict.OK if ready >= wanted else Verdict.WARN
    remedy = "" if verdict is Verdict.OK else f"kubectl describe pods -n {_namespace(deployment)} -l {OPERATOR}"
    return Finding(verdict, "Operator", f"{_name(deployment)}: {ready} of {wanted} replicas are ready", remedy)


def _version(deployment: Document, own: str) -> Finding:
    other = str((deployment["metadata"].get("labels") or {}).get("app.kubernetes.io/version", "unknown"))
    if other == own:
        return Finding(Verdict.OK, "Version", f"{own}, as kubectl finetune")
    return Finding(Verdict.WARN, "Version", f"the operator is {other}, kubectl finetune {own}", f"Install kubectl finetune {other}.")


def check_lease(ask: Ask, deployment: Document, pause: Callable[[float], None]) -> Finding:
    """Whether the leader renews its Lease. No clocks are compared: a Lease is fresh when it changes within its own duration."""
    name = settings_of(deployment).get("LEASE_NAME", deployment["metadata"]["name"])
    path = f"/apis/coordination.k8s.io/v1/namespaces/{_namespace(deployment)}/leases/{name}"
    first = ask(path)
    logs = f"kubectl logs -n {_namespace(deployment)} -l {OPERATOR} --tail=50"
    if first.code == 403:
        return _not_readable("Leader", f"the Lease {name} in namespace {_namespace(deployment)}")
    holder = (first.body.get("spec") or {}).get("holderIdentity") if first.code == 200 else None
    if not holder:
        return Finding(Verdict.FAIL, "Leader", "no replica leads", logs)
    seconds = float(first.body["spec"].get("leaseDurationSeconds", 15))
    for _ in range(int(seconds / POLL_SECONDS)):
        if ask(path).body.get("metadata", {}).get("resourceVersion") != first.body["metadata"]["resourceVersion"]:
            return Finding(Verdict.OK, "Leader", f"{holder} renews its Lease")
        pause(POLL_SECONDS)
    return Finding(Verdict.FAIL, "Leader", f"{holder} has not renewed its Lease for {seconds:.0f} s", logs)


def check_gpus(ask: Ask) -> Finding:
    """How many GPUs schedulable nodes have, and how many of them no pod has asked for."""
    reply = ask("/api/v1/nodes")
    if reply.code != 200:
        return _not_readable("GPUs", "the nodes")
    usable = [node for node in reply.body["items"] if takes_pods(node)]
    there = {str(node["metadata"]["name"]): count for node in usable if (count := allocatable(node, GPU_RESOURCE)) > 0}
    if not there:
        return Finding(
            Verdict.WARN,
            "GPUs",
            f"no node that takes pods offers {GPU_RESOURCE}",
            "Install NVIDIA's device plugin or GPU operator; without it jobs need resources.device: cpu.",
        )
    pods = ask("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed")
    says = f"{sum(there.values())} on {counted(len(there), 'node')}"
    if pods.code != 200:
        return Finding(Verdict.OK, "GPUs", f"{says}; how many are free is not known, for the pods of all namespaces may not be listed")
    taken = held(pods.body["items"], GPU_RESOURCE)
    free = {name: max(0, count - taken[name]) for name, count in there.items()}
    each = ", ".join(f"{name} {free[name]} of {count}" for name, count in list(there.items())[:NAMED_NODES])
    says = f"{says}, {sum(free.values())} free: {each}{', ...' if len(there) > NAMED_NODES else ''}"
    if not any(free.values()):
        return Finding(Verdict.WARN, "GPUs", says, "Jobs are Queued until one is free; kubectl get ftj -A shows who has them.")
    return Finding(Verdict.OK, "GPUs", says)


def check_namespace(ask: Ask, namespace: str) -> Iterator[Finding]:
    """Whether the namespace is there, and FineTuneJobs may be made in it."""
    reply = ask(f"/api/v1/namespaces/{namespace}")
    if reply.code == 404:
        yield Finding(Verdict.FAIL, "Namespace", f"there is no namespace {namespace}", f"kubectl create namespace {namespace}")
        return
    if reply.code == 200 and "deletionTimestamp" in reply.body["metadata"]:
        yield Finding(Verdict.FAIL, "Namespace", f"{namespace} is being deleted", "Choose another with --namespace.")
    wanted = {"group": GROUP, "resource": PLURAL, "verb": "create", "namespace": namespace}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
    answer = ask("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    if (answer.body.get("status") or {}).get("allowed"):
        yield Finding(Verdict.OK, "Rights", f"you may create FineTuneJobs in namespace {namespace}")
    else:
        yield Finding(
            Verdict.FAIL,
            "Rights",
            f"you may not create FineTuneJobs in namespace {namespace}",
            f"Ask for the role edit, which the chart extends: kubectl create rolebinding NAME --clusterrole=edit -n {namespace}",
        )


def check_store(ask: Ask, namespace: str, secret: str) -> Finding:
    """Whether the Secret that jobs reach the store by is there, with its keys. What they are worth, preflight says."""
    reply = ask(f"/api/v1/namespaces/{namespace}/secrets/{secret}")
    if reply.code == 403:
        return _not_readable("Store", f"the Secret {secret}")
    if reply.code != 200:
        return Finding(
            Verdict.FAIL,
            "Store",
            f"namespace {namespace} has no Secret {secret}",
            f"Add {namespace} to the chart's jobNamespaces, make the Secret as helm get notes shows, or name one in checkpoint.secretRef.",
        )
    data = reply.body.get("data") or {}
    if missing := [key for key in STORE_KEYS if not data.get(key)]:
        return Finding(
            Verdict.FAIL, "Store", f"Secret {secret} in namespace {namespace} lacks {', '.join(missing)}", "Add what is missing."
        )
    endpoint = base64.b64decode(data.get("AWS_ENDPOINT_URL", "")).decode()
    return Finding(Verdict.OK, "Store", f"Secret {secret}, {endpoint or 'the endpoint of the installation'}")


def check_presets(ask: Ask) -> Finding:
    """Whether the shipped presets are there."""
    reply = ask(f"/apis/{API_VERSION}/{CLUSTER_PRESET_PLURAL}")
    if reply.code != 200:
        return _not_readable("Presets", "the ClusterFineTunePresets")
    names = {str(each["metadata"]["name"]) for each in reply.body["items"]}
    if missing := sorted(SHIPPED.keys() - names):
        return Finding(
            Verdict.WARN,
            "Presets",
            f"not there: {', '.join(missing)}",
            "Have the administrator set the chart value presets.install to true.",
        )
    return Finding(Verdict.OK, "Presets", f"{len(names)}, the {len(SHIPPED)} shipped ones among them")


def check_base_models(ask: Ask) -> Finding:
    """Whether there is a catalogue to choose from."""
    reply = ask(f"/apis/{API_VERSION}/{BASE_MODEL_PLURAL}")
    if reply.code != 200:
        return _not_readable("BaseModels", "the BaseModels")
    if not reply.body["items"]:
        return Finding(
            Verdict.WARN,
            "BaseModels",
            "none: jobs name models by address only",
            "Have the administrator set the chart value baseModels.install to true.",
        )
    eligible = sum(map(may_be_trained, reply.body["items"]))
    return Finding(Verdict.OK, "BaseModels", f"{len(reply.body['items'])}, of which {eligible} may be chosen (kubectl finetune models)")


def render_findings(findings: Iterable[Finding]) -> Table:
    """A row for each finding; below what it says, the remedy."""
    table = list_table()
    for column in ("", "CHECK"):
        table.add_column(column, no_wrap=True)
    table.add_column("WHAT IT SAYS", overflow="fold")
    for finding in findings:
        remedy = (f"\n{finding.remedy}", "yellow") if finding.remedy else ""
        table.add_row(Text(finding.verdict, style=STYLE[finding.verdict]), finding.subject, Text.assemble(finding.says, remedy))
    return table


def _not_readable(subject: str, what: str) -> Finding:
    return Finding(
        Verdict.WARN, subject, f"your rights do not suffice to read {what}", "Have an administrator run kubectl finetune doctor."
    )


def _namespace(deployment: Document) -> str:
    return str(deployment["metadata"]["namespace"])


def _name(deployment: Document) -> str:
    return f"{_namespace(deployment)}/{deployment['metadata']['name']}"
