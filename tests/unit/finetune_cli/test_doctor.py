"""kubectl finetune doctor, against an API server of canned answers, over HTTP (Z-01)."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import stamina
import yaml
from typer.testing import CliRunner

from finetune_api.constants import API_VERSION
from finetune_api.presets import SHIPPED
from finetune_cli import __main__ as command_line
from finetune_cli.access import Access
from finetune_cli.doctor import KINDS, POLL_SECONDS, Finding, Verdict, examine
from finetune_cli.errors import CliError
from finetune_cli.installation import OPERATOR

VERSION = "0.1.0"
DEPLOYMENTS = "/apis/apps/v1/deployments"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/finetune/leases/leader"
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
NAMESPACE, SECRET = "/api/v1/namespaces/team", "/api/v1/namespaces/team/secrets/finetune-storage"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PRESETS, MODELS = f"/apis/{API_VERSION}/clusterfinetunepresets", f"/apis/{API_VERSION}/basemodels"


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "finetune", **more.pop("metadata", {})}, **more}


def deployment(*, ready: int = 2, release: str = VERSION, **settings: str) -> dict[str, Any]:
    """The operator's, as the chart makes it."""
    env = [{"name": f"FINETUNE_OPERATOR_{name}", "value": value} for name, value in {"LEASE_NAME": "leader", **settings}.items()]
    template = {"spec": {"containers": [{"name": "operator", "env": [{"name": "FINETUNE_OPERATOR_IDENTITY"}, *env]}]}}
    labels = {"labels": {"app.kubernetes.io/version": release}}
    return named("finetune-operator", metadata=labels, spec={"replicas": 2, "template": template}, status={"readyReplicas": ready})


def node(name: str, gpus: int, *, ready: bool = True, cordoned: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    allocatable = {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return named(name, spec={"unschedulable": True} if cordoned else {}, status={"conditions": conditions, "allocatable": allocatable})


def pod(where: str, *gpus: int, init: int = 0) -> dict[str, Any]:
    def wanting(count: int) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": str(count)}} if count else {}}

    return named("pod", spec={"nodeName": where, "containers": [wanting(n) for n in gpus], "initContainers": [wanting(init)]})


class FakeServer:
    """Answers by path; each GET of the Lease finds it renewed, while the leader lives."""

    def __init__(self) -> None:
        secret = {key: base64.b64encode(b"x").decode() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {
            "/version": (200, {"major": "1", "minor": "36+", "gitVersion": "v1.36.3"}),
            f"/apis/{API_VERSION}": (200, {"resources": [{"name": kind} for kind in KINDS]}),
            DEPLOYMENTS: (200, {"items": [deployment()]}),
            LEASE: (200, {"metadata": {}, "spec": {"holderIdentity": "finetune-operator-1", "leaseDurationSeconds": 15}}),
            NODES: (200, {"items": [node("a", 4), node("b", 4), node("c", 0), node("d", 8, ready=False), node("e", 8, cordoned=True)]}),
            PODS: (200, {"items": [pod("a", 1, 2, init=2), pod("b", 1, init=4), pod("d", 8)]}),
            NAMESPACE: (200, named("team")),
            SECRET: (200, {"data": secret}),
            REVIEWS: (201, {"status": {"allowed": True}}),
            PRESETS: (200, {"items": [named(name) for name in SHIPPED]}),
            MODELS: (200, {"items": [named("one", spec={"eligible": True}), named("two", spec={"eligible": False})]}),
        }
        self.leader_lives = True
        self.reviewed: Any = None
        self.queries: dict[str, dict[str, list[str]]] = {}
        self._renewals = 0

    def answer(self, address: str, body: bytes) -> tuple[int, dict[str, Any]]:
        path = urlsplit(address).path
        self.queries[path] = parse_qs(urlsplit(address).query)
        code, document = self.answers.get(path, (404, {"message": "not found"}))
        if path == LEASE and code == 200:
            self._renewals += self.leader_lives
            document = {**document, "metadata": {"resourceVersion": str(self._renewals)}}
        if path == REVIEWS:
            self.reviewed = json.loads(body)["spec"]["resourceAttributes"]
        return code, document


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[FakeServer, Path]]:
    """The server, and a kubeconfig for it."""
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            code, document = fake.answer(self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            data = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - the parent's name
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        cluster = {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}
        context = {"name": "fake", "context": {"cluster": "fake", "user": "me", "namespace": "team"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "me", "user": {}}], "current-context": "fake"}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
        yield fake, kubeconfig
        http.shutdown()


def found(server: tuple[FakeServer, Path], waits: list[float] | None = None) -> dict[str, Finding]:
    """Findings by subject; of several, the worst."""
    ask = Access(str(server[1])).connect().ask
    findings = list(examine(ask, "team", VERSION, pause=(waits if waits is not None else []).append))
    return {each.subject: each for each in sorted(findings, key=lambda each: list(Verdict).index(each.verdict))}


def test_a_cluster_in_order(server: tuple[FakeServer, Path]) -> None:
    """Every check passes; a GPU of a node that is away or cordoned, and one that a pod has asked for, is not free."""
    findings = found(server)
    assert {each.verdict for each in findings.values()} == {Verdict.OK}
    assert findings["GPUs"].says == "8 on 2 nodes, 1 free: a 1 of 4, b 0 of 4"
    assert findings["Leader"].says == "finetune-operator-1 renews its Lease"
    assert findings["BaseModels"].says.startswith("2, of which 1 may be chosen")
    assert server[0].reviewed == {"group": "finetune.dev", "resource": "finetunejobs", "verb": "create", "namespace": "team"}
    assert server[0].queries[DEPLOYMENTS] == {"labelSelector": [OPERATOR]}


@pytest.mark.parametrize(
    ("path", "reply", "subject", "verdict", "says"),
    [
        ("/version", (200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}), "Kubernetes", "fail", "older than 1.32"),
        (
            f"/apis/{API_VERSION}",
            (200, {"resources": [{"name": kind} for kind in KINDS - {"datasets"}]}),
            "CRDs",
            "fail",
            "datasets.finetune",
        ),
        (f"/apis/{API_VERSION}", (404, {}), "CRDs", "fail", "finetunejobs.finetune.dev"),
        (DEPLOYMENTS, (200, {"items": []}), "Operator", "fail", "no Deployment"),
        (DEPLOYMENTS, (200, {"items": [deployment(ready=0)]}), "Operator", "fail", "0 of 2 replicas"),
        (DEPLOYMENTS, (200, {"items": [deployment(ready=1)]}), "Operator", "warn", "1 of 2 replicas"),
        (DEPLOYMENTS, (200, {"items": [deployment(WATCH_NAMESPACES="other,more")]}), "Operator", "fail", "looks after namespace team"),
        (DEPLOYMENTS, (200, {"items": [deployment(release="0.2.0")]}), "Version", "warn", "operator is 0.2.0, kubectl finetune 0.1.0"),
        (DEPLOYMENTS, (403, {}), "Operator", "warn", "your rights do not suffice"),
        (LEASE, (404, {}), "Leader", "fail", "no replica leads"),
        (LEASE, (200, {"spec": {"holderIdentity": ""}}), "Leader", "fail", "no replica leads"),
        (LEASE, (403, {}), "Leader", "warn", "your rights"),
        (NODES, (200, {"items": [node("c", 0)]}), "GPUs", "warn", "offers nvidia.com/gpu"),
        (NODES, (403, {}), "GPUs", "warn", "your rights"),
        (PODS, (200, {"items": [pod("a", 4), pod("b", 4)]}), "GPUs", "warn", "0 free"),
        (PODS, (403, {}), "GPUs", "ok", "how many are free is not known"),
        (NAMESPACE, (404, {}), "Namespace", "fail", "there is no namespace team"),
        (NAMESPACE, (200, named("team", metadata={"deletionTimestamp": "now"})), "Namespace", "fail", "being deleted"),
        (REVIEWS, (201, {"status": {"allowed": False}}), "Rights", "fail", "you may not create FineTuneJobs"),
        (SECRET, (404, {}), "Store", "fail", "has no Secret finetune-storage"),
        (SECRET, (200, {"data": {"AWS_ACCESS_KEY_ID": "eA=="}}), "Store", "fail", "lacks AWS_SECRET_ACCESS_KEY"),
        (SECRET, (403, {}), "Store", "warn", "your rights"),
        (PRESETS, (200, {"items": [named("sft")]}), "Presets", "warn", "lora-chat"),
        (MODELS, (200, {"items": []}), "BaseModels", "warn", "none"),
    ],
)
def test_what_is_not_in_order_is_said_with_a_remedy(
    server: tuple[FakeServer, Path], path: str, reply: tuple[int, dict[str, Any]], subject: str, verdict: str, says: str
) -> None:
    """Z-01: what keeps jobs from running fails; what only cannot be seen, or is not as it could be, warns."""
    server[0].answers[path] = reply
    finding = found(server)[subject]
    assert finding.verdict == verdict
    assert says in finding.says
    assert finding.remedy or verdict == "ok"


def test_a_leader_that_hangs_is_found_without_comparing_clocks(server: tuple[FakeServer, Path]) -> None:
    """The Lease is looked at for as long as it lasts."""
    server[0].leader_lives = False
    waits: list[float] = []
    leader = found(server, waits)["Leader"]
    assert (leader.verdict, leader.says) == (Verdict.FAIL, "finetune-operator-1 has not renewed its Lease for 15 s")
    assert sum(waits) == pytest.approx(15, abs=POLL_SECONDS)


def test_another_version_of_the_api_is_named(server: tuple[FakeServer, Path]) -> None:
    del server[0].answers[f"/apis/{API_VERSION}"]
    server[0].answers["/apis/finetune.dev"] = (200, {"versions": [{"version": "v1"}]})
    crds = found(server)["CRDs"]
    assert crds.says == "finetune.dev is served as v1, not as v1alpha1"


def test_the_secret_is_the_one_the_operator_gives_its_jobs(server: tuple[FakeServer, Path]) -> None:
    server[0].answers[DEPLOYMENTS] = (200, {"items": [deployment(STORAGE_SECRET="own")]})
    assert "has no Secret own" in found(server)["Store"].says


@pytest.mark.parametrize(("is_well", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_is_for_scripts(server: tuple[FakeServer, Path], is_well: bool, code: int) -> None:
    """1 if anything fails; a warning is none. The namespace is the context's."""
    server[0].answers[NODES] = (403, {})
    if not is_well:
        server[0].answers[SECRET] = (404, {})
    result = CliRunner().invoke(command_line.app, ["doctor", "--kubeconfig", str(server[1])])
    assert result.exit_code == code
    assert "your rights do not suffice to read the nodes" in result.output
    assert ("namespace team has no Secret finetune-storage" in result.output) is not is_well


@pytest.mark.parametrize("code", [401, 503])
def test_a_server_that_cannot_be_asked_is_an_error(server: tuple[FakeServer, Path], code: int) -> None:
    """Wrong credentials, and one that stays away."""
    server[0].answers["/version"] = (code, {"message": "not now"})
    stamina.set_testing(True, attempts=2)
    try:
        with pytest.raises(CliError, match=f"refused with {code}.*not now"):
            found(server)
    finally:
        stamina.set_testing(False)
