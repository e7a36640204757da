"""Bad input ends in a clear sentence within seconds: no crash loop, no GPU held (Z-02, Z-07, X-04)."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job
from tests.support.platform import Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e

REFUSED_AT_APPLY: dict[str, tuple[dict[str, Any], str]] = {
    "unknown-field": ({"training": {"learningRat": 0.1}}, "learningRat"),
    "out-of-range": ({"training": {"batchSize": 200}}, "128"),
    "no-eval-data": ({"evaluation": {"strategy": "steps"}}, "evalRatio"),
}


@pytest.mark.parametrize("case", sorted(REFUSED_AT_APPLY))
def test_refused_at_apply(namespace: Kubectl, case: str) -> None:
    """The API server itself names the field and the rule."""
    spec, expected = REFUSED_AT_APPLY[case]
    done = namespace.run("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(make_job(case, spec)), check=False)
    assert done.returncode != 0
    assert expected in done.stderr


FAILS: dict[str, tuple[dict[str, Any], str, str]] = {
    "missing-dataset": ({"dataset": {"uri": "configmap://sft/nowhere.jsonl"}}, "DataError", "nowhere.jsonl"),
    "broken-row": ({"dataset": {"uri": "configmap://broken/rows.jsonl"}}, "DataError", "rows.jsonl, line 3"),
    "missing-secret": ({"model": {"secretRef": {"name": "nobody"}}}, "StorageAuth", "nobody"),
    "wrong-key": ({"checkpoint": {"secretRef": {"name": "wrong"}}}, "StorageAuth", "wrong"),
    "secret-without-key": ({"checkpoint": {"secretRef": {"name": "half"}}}, "StorageAuth", "half"),
    "no-model": ({"model": {"uri": "s3://finetune/models/nothing"}}, "ModelError", "models/nothing"),
    "no-config": ({"model": {"uri": "s3://finetune/models/no-config"}}, "ModelError", "config.json"),
    "gguf-only": ({"model": {"uri": "s3://finetune/models/gguf"}}, "ModelError", "GGUF"),
}


@pytest.fixture(scope="module")
def broken_things(platform: Platform, namespace: Kubectl) -> None:
    """A data set with a bad third row, wrong credentials, model directories that lack something."""
    good = '{"prompt": "a", "completion": "b"}'
    rows = f"{good}\n{good}\n{{broken\n{good}\n"
    right = namespace.get("secret", "finetune-storage")
    assert right is not None
    wrong = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong-wrong-wrong"}
    secret = {"apiVersion": "v1", "kind": "Secret"}
    namespace.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken"}, "data": {"rows.jsonl": rows}},
        {**secret, "metadata": {"name": "wrong"}, "data": right["data"], "stringData": wrong},
        {
            **secret,
            "metadata": {"name": "half"},
            "data": {key: value for key, value in right["data"].items() if key != "AWS_SECRET_ACCESS_KEY"},
        },
    )
    for key in ("models/no-config/model.safetensors", "models/gguf/model.gguf"):
        platform.store.put_object("finetune", key, io.BytesIO(b"GGUF"), 4)


def seconds_until(job: Job, condition: str) -> float:
    """From the job's creation until a condition became what it is, by the object's own timestamps."""
    moments = job.object["metadata"]["creationTimestamp"], job.condition(condition)["lastTransitionTime"]
    created, told = map(datetime.fromisoformat, moments)
    return (told - created).total_seconds()


@pytest.mark.parametrize("case", sorted(FAILS))
@pytest.mark.usefixtures("broken_things")
def test_fails_with_class_and_sentence(run_job: JobFactory, case: str, fault: Fault) -> None:
    """One attempt, a class of the closed set, a message that names the thing, advice, no pod left running."""
    spec, failure_class, expected = FAILS[case]
    fault.strikes("input that no run can use: missing or broken data, Secret or model")
    job = run_job(case, spec)
    status = job.wait_phase("Failed", within=120)
    failure = status["failure"]
    assert failure["class"] == failure_class, failure
    assert expected in failure["message"], failure
    assert failure["advice"]
    assert status["run"] == 1, "user errors are never retried"
    assert job.condition("Stalled")["status"] == "True"
    assert not [p for p in job.pods() if p["status"]["phase"] == "Running"]
    fault.seconds = seconds_until(job, "Stalled")
    fault.ends("Failed in one attempt, class and sentence", 0)


def test_a_preset_that_does_not_exist(run_job: JobFactory, fault: Fault) -> None:
    """Cross-object rules become Valid=False with a sentence before any pod exists."""
    fault.strikes("a preset that does not exist")
    job = run_job("no-preset", {"presetRef": {"name": "nowhere"}})
    valid = eventually(lambda: c if (c := job.condition("Valid")).get("status") == "False" else None, within=30, what="Valid=False")
    assert "nowhere" in valid["message"]
    assert job.pods() == []
    fault.seconds = seconds_until(job, "Valid")
    fault.ends("Valid=False, no pod", 0)


@pytest.mark.usefixtures("broken_things")
def test_gpu_jobs_are_checked_without_a_gpu(run_job: JobFactory, fault: Fault) -> None:
    """Preflight finds bad data, Secrets and models in a CPU pod: no class of bad input asks for nvidia.com/gpu (AC-30, Z-01)."""
    fault.strikes("input that no GPU job can use, found by preflight", len(FAILS))
    jobs = {case: run_job(f"gpu-{case}", {"resources": {"device": "gpu"}, **spec}) for case, (spec, _, _) in FAILS.items()}
    found = {case: job.wait_phase("Failed", within=240) for case, job in jobs.items()}
    assert {case: status["failure"]["class"] for case, status in found.items()} == {case: entry[1] for case, entry in FAILS.items()}
    assert {case: status.get("run", 0) for case, status in found.items()} == dict.fromkeys(FAILS, 0), "no run, so no GPU was asked for"
    fault.seconds = max(seconds_until(job, "Stalled") for job in jobs.values())
    fault.ends("Failed without a GPU, class and sentence", 0)
