"""A run that outlives the version that started it: upgrade from the previous chart, then another CA (issue 6, "The chart, finished")."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import TLS_SECRET
from finetune_api.contract.env import PROGRESS_CA_PATH
from tests.e2e.conftest import JobFactory
from tests.support.install import install_chart, unpack_previous
from tests.support.platform import SYSTEM_NAMESPACE, Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
SPEC: dict[str, Any] = {"training": {"maxSteps": 20_000}, "checkpoint": {"steps": 200}}
"""Longer than the test: it ends with a pause."""
ONE_CERTIFICATE = "-----END CERTIFICATE-----\n"
FURTHER = 50
"""Steps that are reported after each change, before it counts as survived."""


@pytest.fixture
def previous(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """The previous version in place of this one; this one again after the test."""
    commit = unpack_previous(tmp_path)
    if commit is None:
        leave = pytest.fail if os.environ.get("FINETUNE_SOAK") else pytest.skip
        leave("this clone has no previous version in its history; name a commit by FINETUNE_PREVIOUS")
    install_chart(platform.kubectl, tree=tmp_path)
    platform.reconnect()
    yield commit
    install_chart(platform.kubectl)
    platform.reconnect()


def secret(kubectl: Kubectl) -> dict[str, str]:
    """Decoded keys of the Secret with the endpoint's certificates."""
    found = kubectl.get("secret", TLS_SECRET)
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def change_secret(kubectl: Kubectl, changes: Mapping[str, str | None]) -> None:
    """What docs/how-to.md tells an administrator to do; None removes a key."""
    data = {key: value if value is None else base64.b64encode(value.encode()).decode() for key, value in changes.items()}
    kubectl("patch", "secret", TLS_SECRET, "--type=merge", "-p", json.dumps({"data": data}))


def goes_on(job: Job) -> None:
    """New steps arrive in the status."""
    job.wait_step(int(job.status["progress"]["step"]) + FURTHER)


def test_a_run_reports_on_through_an_upgrade_and_a_new_ca(
    platform: Platform, previous: str, namespace: Kubectl, run_job: JobFactory, fault: Fault
) -> None:
    """CRDs, operator and store are replaced, then the CA: the pod stays, reports, and its pause is acknowledged."""
    job = run_job("upgraded", SPEC)
    job.wait_step(20)
    pod = job.pod(0)
    uid = job.pods()[0]["metadata"]["uid"]
    system = platform.kubectl.within(SYSTEM_NAMESPACE)

    fault.strikes("helm upgrade of operator and store, then a new CA, during a run")
    install_chart(platform.kubectl)
    platform.reconnect()
    goes_on(job)

    old = secret(system)
    change_secret(system, {"ca.key": None})
    eventually(lambda: secret(system)["ca.crt"].count(ONE_CERTIFICATE) == 2, within=120, what="a second CA beside the old one")
    assert secret(system)["tls.crt"] == old["tls.crt"], "the old leaf serves until every pod knows the new CA"
    eventually(lambda: certificates_of(namespace, pod) == 2, within=240, what="the pod has both CAs", every=2)

    change_secret(system, {"ca.crt": secret(system)["ca.crt"].partition(ONE_CERTIFICATE)[0] + ONE_CERTIFICATE})
    eventually(lambda: secret(system)["tls.crt"] != old["tls.crt"], within=120, what="a leaf of the new CA")
    # A connection that is open would go on with the certificate it began with.
    system("rollout", "restart", "deployment/finetune-operator")
    system("rollout", "status", "deployment/finetune-operator", "--timeout=120s")
    goes_on(job)
    assert [each["metadata"]["uid"] for each in job.pods()] == [uid]

    namespace("patch", "finetunejob", job.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    status = job.wait_phase("Paused")
    assert status["pause"]["saved"] is True
    assert (status["run"], status["attemptCount"]) == (1, 1), f"upgraded from {previous}: nothing was restarted"
    latest = status["checkpoints"]["latest"]
    assert latest["step"] == status["pause"]["step"]
    assert f"a1/checkpoint-{latest['step']}/manifest.json" in job.objects()
    fault.ends("same pod throughout, pause acknowledged", 0)


def certificates_of(namespace: Kubectl, pod: str) -> int:
    """How many CA certificates the kubelet has brought to a pod."""
    return namespace("exec", pod, "--", "cat", PROGRESS_CA_PATH).count(ONE_CERTIFICATE)
