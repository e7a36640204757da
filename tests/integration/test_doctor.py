"""kubectl finetune doctor on a real API server: as its administrator, and with fewer rights (Z-01)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_cli.access import Access
from finetune_cli.doctor import Verdict, check_lease
from tests.support.platform import Kubectl

pytestmark = pytest.mark.integration


def doctor(kubeconfig: Path, namespace: str) -> tuple[int, str]:
    """Exit code, and what it says with single spaces."""
    command = [sys.executable, "-m", "finetune_cli", "doctor", "--namespace", namespace, "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert not done.stderr, done.stderr
    return done.returncode, " ".join(done.stdout.split())


def test_as_an_administrator(kubeconfig: Path, unattended: Kubectl) -> None:
    """Everything can be looked at; the Secret of the store is what a new namespace lacks."""
    code, said = doctor(kubeconfig, unattended.namespace)
    assert code == 1
    assert "all 7 kinds of finetune.dev/v1alpha1 are served" in said
    assert f"you may create FineTuneJobs in namespace {unattended.namespace}" in said
    assert f"namespace {unattended.namespace} has no Secret finetune-storage" in said
    assert "your rights do not suffice" not in said
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "http://store:9000"}
    unattended.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "finetune-storage"}, "stringData": keys})
    assert "Secret finetune-storage, http://store:9000" in doctor(kubeconfig, unattended.namespace)[1]


def test_with_the_rights_of_a_viewer(kubeconfig: Path, unattended: Kubectl, tmp_path: Path) -> None:
    """What may not be read is a warning with its remedy; that jobs may not be made is a failure."""
    unattended("create", "serviceaccount", "viewer")
    unattended("create", "rolebinding", "viewer", "--clusterrole=view", f"--serviceaccount={unattended.namespace}:viewer")
    config: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    user = {"name": "viewer", "user": {"token": unattended("create", "token", "viewer").strip()}}
    contexts = [{**each, "context": {**each["context"], "user": "viewer"}} for each in config["contexts"]]
    own = tmp_path / "viewer.kubeconfig"
    own.write_text(yaml.safe_dump({**config, "users": [user], "contexts": contexts}))
    code, said = doctor(own, unattended.namespace)
    assert code == 1
    assert f"you may not create FineTuneJobs in namespace {unattended.namespace}" in said
    for what in ("the Deployments of the cluster", "the nodes", "the Secret finetune-storage"):
        assert f"your rights do not suffice to read {what}" in said


def test_a_lease_that_is_renewed_and_one_that_is_not(kubeconfig: Path, unattended: Kubectl) -> None:
    """The leader is told by the Lease's changes alone."""
    lease = {"holderIdentity": "one", "leaseDurationSeconds": 1}
    unattended.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"}, "spec": lease})
    env = [{"name": "FINETUNE_OPERATOR_LEASE_NAME", "value": "leader"}]
    metadata = {"name": "finetune-operator", "namespace": unattended.namespace}
    deployment = {"metadata": metadata, "spec": {"template": {"spec": {"containers": [{"env": env}]}}}}
    ask = Access(str(kubeconfig)).connect().ask

    def renew(_: float) -> None:
        unattended("annotate", "lease", "leader", "renewed=yes", "--overwrite")

    assert check_lease(ask, deployment, renew).verdict is Verdict.OK
    stale = check_lease(ask, deployment, lambda _: None)
    assert (stale.verdict, stale.says) == (Verdict.FAIL, "one has not renewed its Lease for 1 s")
