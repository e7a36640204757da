"""The Job of kubectl finetune infer on a real API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_cli.access import Access
from finetune_cli.job import JobRef
from finetune_cli.job_runner import JobRunner
from finetune_cli.servers import stop_servers
from finetune_cli.serving import Asked, build_server
from finetune_cli.short_jobs import Surroundings
from tests.support.jobs import make_job
from tests.support.platform import Kubectl

pytestmark = pytest.mark.integration
HERE = Surroundings("registry.example/trainer:1", ca_configmap="cas", https_proxy="http://proxy:3128")


def test_the_server_is_taken_once_and_ended_by_its_job_s_name(kubeconfig: Path, unattended: Kubectl) -> None:
    """V-07: every field is known to the API server, the pod fits into a restricted namespace; a second question joins; --stop ends it."""
    unattended("label", "namespace", unattended.namespace, "pod-security.kubernetes.io/enforce=restricted")
    unattended.apply(make_job("asked", {"resources": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}))
    status = {"phase": "Training", "outputUri": "s3://finetune/asked", "method": "sft"}
    unattended("patch", "finetunejob", "asked", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    cluster = Access(str(kubeconfig)).connect()
    job, runner = cluster.job(JobRef("asked", unattended.namespace)), JobRunner(cluster)
    both = [build_server(job, asked, HERE) for asked in (Asked(checkpoint=20), Asked(checkpoint=20, gpu=True))]
    for objects in both:
        template = objects.job["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", **template["metadata"]}, "spec": template["spec"]}
        for document in (objects.job, objects.config_map, pod):
            unattended("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))
        assert runner.start(objects) is True
        assert runner.start(objects) is False
    name = both[0].job["metadata"]["name"]
    found = unattended.get("job", name)
    assert found is not None
    assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == [job.uid]
    ended = stop_servers(runner, job.uid, unattended.namespace)
    assert (name in ended, len(ended)) == (True, 2)
    assert unattended.get("job", name) is None
    assert stop_servers(runner, job.uid, unattended.namespace) == []
