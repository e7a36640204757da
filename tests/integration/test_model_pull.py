"""The Job of kubectl finetune model pull on a real API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_cli.access import Access
from finetune_cli.job_runner import JobRunner
from finetune_cli.pull import Pull, build_base_model, build_pull, provisional
from finetune_cli.short_jobs import Surroundings
from tests.support.platform import Kubectl

pytestmark = pytest.mark.integration
HERE = Surroundings("registry.example/trainer:1", ca_configmap="cas", https_proxy="http://proxy:3128")


def test_the_job_is_taken_once_and_its_pod_by_a_restricted_namespace(kubeconfig: Path, unattended: Kubectl) -> None:
    """C-13: every field is known to the API server; asked again, the Job under way is joined; its ConfigMap goes with it."""
    unattended("label", "namespace", unattended.namespace, "pod-security.kubernetes.io/enforce=restricted")
    asked = Pull("org/tiny", None, "s3://bucket/models/tiny", unattended.namespace, "finetune-storage", "hub-token")
    objects = build_pull(asked, HERE)
    template = objects.job["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **template["metadata"]}, "spec": template["spec"]}
    for document in (objects.job, objects.config_map, pod):
        unattended("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))
    runner = JobRunner(Access(str(kubeconfig)).connect())
    assert runner.start(objects) is True
    assert runner.start(objects) is False
    name = objects.job["metadata"]["name"]
    config_map = unattended.get("configmap", name)
    job = unattended.get("job", name)
    assert config_map is not None
    assert job is not None
    assert [owner["uid"] for owner in config_map["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    assert runner.register(build_base_model("pulled-tiny", provisional(asked), asked), dry_run=True) is True
    assert unattended.get("basemodel", "pulled-tiny") is None
