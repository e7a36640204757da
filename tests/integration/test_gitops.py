"""What GitOps tools do to a job on a real API server: applying what is there changes nothing, and a scale to zero meets an apply."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.constants import API_VERSION, KIND
from tests.support.apiserver import ApiServer
from tests.support.phases import RECORDS
from tests.support.platform import Kubectl

pytestmark = pytest.mark.integration
ARGO = ("apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller")
FLUX = ("apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller")
PLAIN_SSA = ("apply", "--server-side", "--field-manager=ci")
CLIENT = ("apply",)


@pytest.fixture
def kubectl(kubeconfig: Path, api: ApiServer) -> Kubectl:
    return Kubectl(kubeconfig).within(api.namespace)


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """A job as it is in Git. Its preset does not exist, so that an operator in the cluster leaves it alone."""
    sources = {"model": {"uri": "hf://org/model"}, "dataset": {"uri": "hf://org/data"}, "presetRef": {"name": "nowhere"}}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": {**sources, **spec}}


def replicas(kubectl: Kubectl, name: str) -> int:
    found = kubectl.get("finetunejob", name)
    assert found is not None
    return int(found["spec"]["replicas"])


def apply(kubectl: Kubectl, how: tuple[str, ...], document: Mapping[str, Any]) -> str:
    """Apply a document; what kubectl says of it."""
    done = kubectl.run(*how, "-f", "-", stdin=yaml.safe_dump(dict(document)), check=False)
    return (done.stdout + done.stderr).strip()


WAYS = {"argocd": ARGO, "flux": FLUX, "client": CLIENT}


@pytest.mark.parametrize("way", WAYS)
def test_an_apply_takes_a_scale_to_zero_back(kubectl: Kubectl, way: str) -> None:
    """Q-10, documented in docs/gitops.md: with replicas in Git a pause by `kubectl scale` holds until the next apply of the manifest."""
    name, how = f"in-git-{way}", WAYS[way]
    document = manifest(name, replicas=2)
    apply(kubectl, how, document)
    kubectl("scale", f"finetunejob/{name}", "--replicas=0")
    apply(kubectl, how, document)
    assert replicas(kubectl, name) == 2


@pytest.mark.parametrize("way", WAYS)
def test_without_replicas_in_git_the_pause_stays(kubectl: Kubectl, way: str) -> None:
    """Who leaves replicas out of Git may scale: no apply touches it."""
    name, how = f"not-in-git-{way}", WAYS[way]
    apply(kubectl, how, manifest(name))
    kubectl("scale", f"finetunejob/{name}", "--replicas=0")
    apply(kubectl, how, manifest(name))
    assert replicas(kubectl, name) == 0


def test_a_server_side_apply_without_force_takes_it_back_too(kubectl: Kubectl) -> None:
    """A scale takes the field from its owner and the API server records no other one for a custom resource, so that nothing conflicts."""
    document = manifest("unforced", replicas=2)
    apply(kubectl, PLAIN_SSA, document)
    kubectl("scale", "finetunejob/unforced", "--replicas=0")
    assert "conflict" not in apply(kubectl, PLAIN_SSA, document)
    assert replicas(kubectl, "unforced") == 2


def test_taking_replicas_out_of_git_while_paused_keeps_the_pause(kubectl: Kubectl) -> None:
    """After the scale the apply owns the field no more, so that it is not set back to its default."""
    apply(kubectl, ARGO, manifest("taken-out", replicas=2))
    kubectl("scale", "finetunejob/taken-out", "--replicas=0")
    apply(kubectl, ARGO, manifest("taken-out"))
    assert replicas(kubectl, "taken-out") == 0


def test_a_replacing_sync_writes_the_whole_manifest(kubectl: Kubectl) -> None:
    """Argo CD's Replace=true: what the manifest does not say gets its default, replicas too."""
    apply(kubectl, ("create",), manifest("replaced"))
    kubectl("scale", "finetunejob/replaced", "--replicas=0")
    before = kubectl.get("finetunejob", "replaced")
    apply(kubectl, ("replace",), manifest("replaced"))
    after = kubectl.get("finetunejob", "replaced")
    assert before is not None
    assert after is not None
    assert after["spec"]["replicas"] == 1
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_forced_sync_makes_another_job(kubectl: Kubectl) -> None:
    """Argo CD's Force=true with Replace=true deletes and creates: a new uid, so a training from the beginning. Never for jobs."""
    apply(kubectl, ("create",), manifest("forced"))
    before = kubectl.get("finetunejob", "forced")
    apply(kubectl, ("replace", "--force"), manifest("forced"))
    after = kubectl.get("finetunejob", "forced")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_pause_in_git_lasts(kubectl: Kubectl) -> None:
    """Q-01: suspend in the manifest is the pause that every apply keeps."""
    document = manifest("suspended", suspend=True)
    for how in (ARGO, FLUX, CLIENT):
        apply(kubectl, how, document)
    found = kubectl.get("finetunejob", "suspended")
    assert found is not None
    assert found["spec"]["suspend"] is True


@pytest.mark.parametrize("record", sorted(RECORDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_applying_the_same_file_again_is_no_change_in_any_phase(api: ApiServer, kubectl: Kubectl, record: Path) -> None:
    """Kubectl diff and the server-side dry run are empty whatever the operator wrote, by either kind of apply."""
    kept = yaml.safe_load(record.read_text(encoding="utf-8"))
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": f"kept-{record.stem}"}, "spec": copy.deepcopy(kept["spec"])}
    document["spec"]["presetRef"] = {"name": "nowhere"}
    name, text = document["metadata"]["name"], yaml.safe_dump(document)
    kubectl("apply", "-f", "-", stdin=text)
    if "status" in kept:
        answer = api.request("PATCH", api.path(KIND, name, "status"), {"status": kept["status"]})
        assert answer.code == 200, answer.message
    assert kubectl("diff", "-f", "-", stdin=text) == ""
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=text)
    kubectl(*ARGO, "-f", "-", stdin=text)
    assert kubectl("diff", *ARGO[1:], "-f", "-", stdin=text) == ""
    before = kubectl.get("finetunejob", name)
    kubectl(*ARGO, "--dry-run=server", "-f", "-", stdin=text)
    kubectl(*ARGO, "-f", "-", stdin=text)
    after = kubectl.get("finetunejob", name)
    assert before is not None
    assert after is not None
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], before["metadata"]["generation"])
