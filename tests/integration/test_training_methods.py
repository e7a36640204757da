"""TrainingMethods on a real API server: what is stored, what kubectl shows, and the pods that are made from one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, KIND, METHOD_KIND
from finetune_api.contract.run_config import CustomMethod
from finetune_api.models.training_method import TrainingMethodSpec
from finetune_api.resolve import resolve
from finetune_operator.plan.configmap import build_config_map
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject
from finetune_operator.plan.run_config import Chosen, build_run_config
from finetune_operator.plan.workload import build_job
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.manifests import VALID, accepted, job_of
from tests.support.operator_cluster import SETTINGS
from tests.support.platform import eventually

pytestmark = pytest.mark.integration
METHODS = {str(case.document["metadata"]["name"]): case.document for case in accepted(VALID) if case.document["kind"] == METHOD_KIND}


@pytest.fixture
def method(api: ApiServer) -> Iterator[dict[str, Any]]:
    """A stored TrainingMethod of the test's own."""
    name = f"own-{uuid.uuid4().hex[:8]}"
    document = {"apiVersion": API_VERSION, "kind": METHOD_KIND, "metadata": {"name": name}, "spec": METHODS["own-cuda"]["spec"]}
    answer = api.request("POST", api.path(METHOD_KIND), document, fieldValidation="Strict")
    assert answer.code == 201, answer.message
    yield answer.body
    api.request("DELETE", api.path(METHOD_KIND, name))


def test_what_is_stored_is_what_the_models_read(api: ApiServer, method: dict[str, Any]) -> None:
    """B-01: one source; the schema's defaults are the model's."""
    read = TrainingMethodSpec.model_validate(method["spec"])
    assert (read.resumable, read.parameters is not None and len(read.parameters)) == (True, 6)
    least = api.request("POST", api.path(METHOD_KIND), {**METHODS["least"], "metadata": {"name": "judged-least"}}, dryRun="All")
    assert least.body["spec"] == {"image": "own", "resumable": False, "writableRoot": False}


def test_kubectl_shows_them(kubeconfig: Path, api: ApiServer, method: dict[str, Any]) -> None:
    """A-02: choose a method out of the managed list."""
    table = get_table(kubeconfig, "trm", method["metadata"]["name"])
    assert "registry.example/ml/own-cuda:1.4" in str(table)
    assert "choose it by methodRef" in " ".join(explain(kubeconfig, "trainingmethods.spec").split())


def test_it_can_be_changed(api: ApiServer, method: dict[str, Any]) -> None:
    """An administrator rolls out an image; a wrong parameter is refused with the sentence of the rule."""
    path = api.path(METHOD_KIND, method["metadata"]["name"])
    assert api.request("PATCH", path, {"spec": {"image": "own:2"}}).code == 200
    wrong = api.request("PATCH", path, {"spec": {"parameters": [{"name": "A", "type": "integer", "default": "x"}]}})
    assert (wrong.code, "default does not fit" in wrong.message) == (422, True)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_api_server_takes_the_objects_of_a_run(api: ApiServer, replicas: int) -> None:
    """Issue 5: ConfigMap, Job and pod of a method, the pod under Pod Security restricted; nothing is stored."""
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    assert api.request("PATCH", f"/api/v1/namespaces/{api.namespace}", labels).code == 200
    document = job_of("own", {"methodRef.name": "own-cuda", "methodRef.parameters": {"TEACHER": "x"}, "methodRef.outputClaim": "results"})
    stored = api.request("POST", api.path(KIND), {**document, "metadata": {"name": f"own-{replicas}"}})
    assert stored.code == 201, stored.message
    job = JobObject.from_manifest({**stored.body, "status": {}})
    spec = resolve({**job.spec, "replicas": replicas}, None, {"resources": METHODS["own-cuda"]["spec"]["resources"]}).spec
    custom = CustomMethod(name="own-cuda", spec=TrainingMethodSpec.model_validate(METHODS["own-cuda"]["spec"]))
    config = build_run_config(job, spec, 1, SETTINGS, Chosen(custom))
    manifest = build_job(job, config, SETTINGS, reason="Created")
    name = manifest["metadata"]["name"]
    made = {
        f"/api/v1/namespaces/{api.namespace}/configmaps": build_config_map(job, config, name, COMPONENT_TRAINER, SETTINGS),
        f"/apis/batch/v1/namespaces/{api.namespace}/jobs": manifest,
        f"/api/v1/namespaces/{api.namespace}/pods": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**manifest["spec"]["template"]["metadata"], "name": name},
            "spec": manifest["spec"]["template"]["spec"],
        },
    }
    eventually(
        lambda: api.request("GET", f"/api/v1/namespaces/{api.namespace}/serviceaccounts/default").code == 200,
        within=30,
        what="the namespace's account",
    )
    for path, each in made.items():
        answer = api.request("POST", path, each, dryRun="All", fieldValidation="Strict")
        assert answer.code == 201, answer.message
