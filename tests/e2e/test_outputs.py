"""A training with everything that can be made of its result: merged, GGUF, pushed to a hub inside the cluster (W-01, W-03, W-04, W-09)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.hub_pod import CODE_DIR, PORT, hub_pod
from tests.support.platform import Job, Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
TOKEN = "may-write"


@pytest.fixture
def hub(platform: Platform, namespace: Kubectl) -> Iterator[str]:
    """A server that speaks the hub's protocol; returns the Secret to write to it."""
    command = ["python3", f"{CODE_DIR}/hub.py", str(PORT), TOKEN]
    with hub_pod(namespace, "hub", platform.images["trainer"], command, token=TOKEN) as secret:
        yield secret


def test_a_tiny_job_with_merge_gguf_and_push(run_job: JobFactory, namespace: Kubectl, hub: str, tmp_path: Path) -> None:
    """Exporting after the training pods ended; every form in status, in the store and in the repository."""
    job = run_job(
        "exported",
        {
            "training": {"maxSteps": 3},
            "dataset": {"evalRatio": 0.1},
            "output": {
                "merge": True,
                "export": {"gguf": {"enabled": True, "quant": ["Q8_0"]}, "samples": 2, "memory": "3Gi"},
                "push": {"enabled": True, "repoId": "team/helper", "secretRef": {"name": hub}},
                "modelCard": {"license": "apache-2.0"},
            },
        },
    )
    job.wait_phase("Exporting")
    eventually(lambda: namespace.items("pods", "finetune.dev/component=export") or None, within=60, what="the export's pod")
    (pod,) = namespace.items("pods", "finetune.dev/component=export")
    assert pod["spec"]["containers"][0]["args"] == ["export"]
    status = job.wait_phase("Succeeded")
    assert job.condition("Exported").get("status") == "True", job.story()
    outputs = {each["type"]: each for each in status["artifacts"]["outputs"]}
    assert set(outputs) == {"merged", "gguf", "hub"}
    files = job.objects()
    assert {"final/merged/model.safetensors", "final/gguf/exported-Q8_0.gguf", "final/export.json", "final/README.md"} <= set(files)
    assert files["final/gguf/exported-Q8_0.gguf"] == outputs["gguf"]["sizeBytes"]
    answers = json.loads(job.read("final/samples.json"))
    assert [each["split"] for each in answers] == ["train", "train", "eval", "eval"]
    lineage = json.loads(job.read("lineage.json"))
    assert [attempt["attempt"] for attempt in lineage["attempts"]] == [1]
    path = "/api/models/team/helper"
    script = (
        f"import json,urllib.request as u; r=u.Request('http://{hub}:{PORT}{path}', headers={{'Authorization': 'Bearer {TOKEN}'}}); "
        "print(' '.join(s['rfilename'] for s in json.load(u.urlopen(r))['siblings']))"
    )
    pushed = set(namespace("exec", hub, "--", "python3", "-c", script).split())
    assert {"model.safetensors", "adapter/adapter_model.safetensors", "exported-Q8_0.gguf", "README.md"} <= pushed
    ask_result(job, namespace, tmp_path)


def ask_result(job: Job, namespace: Kubectl, directory: Path) -> None:
    """V-01 V-03 V-07 V-14: the first question starts a restricted pod, the second is answered by it; it goes with the job."""
    told = infer(job, namespace, directory, "--sample", "1", "--max-new-tokens", "8")
    assert "the final adapter of step 3 on s3://finetune/models/tiny-test" in told.stderr
    assert "Loading" in told.stderr
    assert "Generating" in told.stderr
    prompt = ("--prompt", "How do I list pods?", "--max-new-tokens", "8")
    first, second = (infer(job, namespace, directory, *prompt) for _ in range(2))
    assert first.stdout == second.stdout
    assert "Loading" not in second.stderr
    (server,) = namespace.items("jobs", "finetune.dev/component=serve")
    assert [owner["name"] for owner in server["metadata"]["ownerReferences"]] == [job.name]
    history = directory / "history.txt"
    infer(job, namespace, directory, "--export", str(history))
    assert history.read_text().count("> How do I list pods?") == 2
    assert "ended" in infer(job, namespace, directory, "--stop").stderr
    eventually(lambda: not namespace.items("pods", "finetune.dev/component=serve"), within=60, what="the server's end")
    assert "the merged model of step 3" in infer(job, namespace, directory, *prompt, "--form", "merged").stderr
    namespace("delete", "finetunejob", job.name, "--wait=true", "--timeout=120s")
    eventually(lambda: not namespace.items("jobs", "finetune.dev/component=serve"), within=60, what="no server without its job")


def infer(job: Job, namespace: Kubectl, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``kubectl finetune infer`` as a user would, with a history of its own."""
    command = [sys.executable, "-m", "finetune_cli", "infer", job.name, "-n", namespace.namespace, *words]
    environment = {**namespace.environment, "XDG_STATE_HOME": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
