"""Jobs of a TrainingMethod: an administrator's program is told what to do, stopped, counted and started again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.constants import API_VERSION, LABEL_COMPONENT, METHOD_KIND
from finetune_api.contract.failures import EXIT_STOPPED, EXIT_USER_ERROR
from finetune_api.contract.progress import KubeflowMetric, ProgressPost, TrainerStatus
from finetune_api.lifecycle import may_follow
from finetune_api.models.status import Phase
from finetune_operator.feed import read_known
from finetune_operator.plan.conditions import format_time
from finetune_operator.plan.custom import NOT_RESUMABLE
from finetune_operator.progress.numbers import patch_of, progress_of
from tests.support.operator_cluster import NAMESPACE, SETTINGS, FakeCluster

METHOD: dict[str, Any] = {
    "image": "registry.example/own:1",
    "command": ["python", "train.py"],
    "args": ["--lr", "$(LEARNING_RATE)"],
    "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
    "parameters": [
        {"name": "TEMPERATURE", "type": "number", "minimum": 0, "maximum": 2, "default": "0.7"},
        {"name": "NUM_GENERATIONS", "type": "integer", "minimum": 1, "maximum": 10},
        {"name": "FUSED", "type": "boolean", "default": "true"},
    ],
    "resources": {"device": "cpu", "cpu": "4", "processesPerReplica": 2},
    "resumable": True,
}


def add_method(cluster: FakeCluster, name: str = "own", **changes: Any) -> None:
    manifest = {"apiVersion": API_VERSION, "kind": METHOD_KIND, "metadata": {"name": name, "namespace": ""}, "spec": {**METHOD, **changes}}
    cluster.api.add("trainingmethods", manifest, namespace="")


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster()
    add_method(made)
    return made


def create(cluster: FakeCluster, **spec: Any) -> None:
    """A job of the method that leaves the device to it."""
    cluster.create({"methodRef": {"name": "own"}, "resources": {}, **spec})


async def training(cluster: FakeCluster, **spec: Any) -> None:
    create(cluster, **spec)
    await cluster.until(lambda: cluster.phase == "Training")


def report(cluster: FakeCluster, percent: int, run: int | None = None, **metrics: float) -> None:
    """What the endpoint stores of a post by the stock protocol."""
    told = [KubeflowMetric(name=name, value=str(value)) for name, value in metrics.items()]
    now = format_time(cluster.clock.now())
    post = ProgressPost(trainer_status=TrainerStatus(last_updated_time=now, progress_percentage=percent, metrics=told))
    known = read_known(cluster.manifest)
    progress = progress_of(post, known.merged, before=known.progress, run=run or known.run, now=now)
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"status": {"progress": patch_of(progress)}})


def pod_spec(cluster: FakeCluster) -> dict[str, Any]:
    return dict(cluster.jobs()[-1]["spec"]["template"]["spec"])


def variables(cluster: FakeCluster) -> dict[str, Any]:
    """Plain values of the container's variables; what is read from elsewhere as it is written."""
    entries = pod_spec(cluster)["containers"][0]["env"]
    assert len({entry["name"] for entry in entries}) == len(entries), "each once"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def job_file(cluster: FakeCluster, run: int = 1) -> dict[str, Any]:
    manifest = cluster.api.get("configmaps", f"demo-r{run}")
    assert manifest is not None
    return dict(json.loads(manifest["data"]["job.json"]))


def verbs(cluster: FakeCluster) -> set[str]:
    """Verbs of our own image that were ever sent for this job."""
    made = [m for plural, kind, m in cluster.api.history if plural == "jobs" and kind == "ADDED"]
    return {m["metadata"]["labels"][LABEL_COMPONENT] for m in made} - {"trainer"}


def valid(cluster: FakeCluster) -> tuple[str, str, str]:
    found = next(c for c in cluster.status.conditions if c.type == "Valid")
    return found.status, found.reason, found.message


def message(cluster: FakeCluster, kind: str = "Ready") -> str:
    return next(c.message for c in cluster.status.conditions if c.type == kind)


async def test_the_program_is_the_administrator_s(cluster: FakeCluster) -> None:
    """B-01, B-02: image, command and arguments come from the method; the pod stays as restricted as any other."""
    await training(cluster)
    spec = pod_spec(cluster)
    (container,) = spec["containers"]
    assert (container["image"], container["command"], container["args"]) == ("registry.example/own:1", METHOD["command"], METHOD["args"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert container["ports"] == []
    assert "annotations" not in cluster.jobs()[0]["spec"]["template"]["metadata"] or not any(
        key.startswith("prometheus.io") for key in cluster.jobs()[0]["spec"]["template"]["metadata"]["annotations"]
    )
    assert container["resources"]["requests"]["cpu"] == "4"
    assert cluster.status.resolved["resources.cpu"].source == "method"
    assert (cluster.status.method, cluster.status.gpus) == ("own", 0), "A-09"


async def test_a_program_may_have_a_user_and_a_root_of_its_own() -> None:
    cluster = FakeCluster()
    add_method(cluster, runAsUser=1000, writableRoot=True, imagePullPolicy="Always")
    await training(cluster)
    spec = pod_spec(cluster)
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    assert spec["containers"][0]["imagePullPolicy"] == "Always"


async def test_parameters_arrive_as_variables_and_as_a_file(cluster: FakeCluster) -> None:
    """B-02: one name everywhere; texts in the environment, numbers and flags in the file; defaults filled in."""
    await training(
        cluster, methodRef={"name": "own", "parameters": {"NUM_GENERATIONS": "4"}}, training={"learningRate": 1e-5, "maxSteps": 50}
    )
    told = variables(cluster)
    assert (told["NUM_GENERATIONS"], told["TEMPERATURE"], told["FUSED"], told["NCCL_DEBUG"]) == ("4", "0.7", "true", "WARN")
    assert (told["LEARNING_RATE"], told["MAX_STEPS"], told["DATASET_PATH"]) == ("1e-05", "50", "/mnt/configmap/rows/train.jsonl")
    document = job_file(cluster)
    assert document["parameters"] == {"NUM_GENERATIONS": 4, "TEMPERATURE": 0.7, "FUSED": True}
    assert (document["method"], document["run"], document["spec"]["training"]["maxSteps"]) == ("own", 1, 50)
    assert "method" not in document["spec"], "no built-in method is spoken of"
    mounts = {mount["mountPath"]: mount for mount in pod_spec(cluster)["containers"][0]["volumeMounts"]}
    assert mounts["/etc/finetune/job.json"]["subPath"] == "job.json"


async def test_it_reports_by_the_stock_protocol(cluster: FakeCluster) -> None:
    """Issue 5: a program with transformers' callback reports unchanged; numbers, percent and time left show."""
    await training(cluster)
    told = variables(cluster)
    assert told["KUBEFLOW_TRAINER_SERVER_URL"].endswith("/v1/namespaces/default/finetunejobs/demo/progress")
    assert (told["KUBEFLOW_TRAINER_SERVER_TOKEN"], told["KUBEFLOW_TRAINER_SERVER_CA_CERT"]) == (
        "/var/run/finetune/token/token",
        "/etc/finetune/ca/ca.crt",
    )
    assert "DISABLE_KUBEFLOW_INTEGRATION" not in told
    report(cluster, 40, current_step=8, total_steps=20, loss=0.5, reward=0.9)
    await cluster.settle()
    progress = cluster.status.progress
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.percent, progress.loss, progress.metrics) == (8, 20, 40, 0.5, {"reward": 0.9})
    assert cluster.phase == "Training"


async def test_ranks_find_each_other(cluster: FakeCluster) -> None:
    """DDP over replicas: torchrun reads PET_*; with one process per pod each pod knows its rank."""
    await training(cluster, replicas=2)
    told = variables(cluster)
    assert (told["PET_NNODES"], told["PET_NPROC_PER_NODE"], told["WORLD_SIZE"]) == ("2", "2", "4")
    assert told["MASTER_ADDR"] == told["PET_MASTER_ADDR"] == "demo-r1-0.demo-r1.default.svc"
    assert told["PET_NODE_RANK"] == {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    assert "RANK" not in told
    single = FakeCluster()
    add_method(single)
    await training(single, replicas=2, resources={"processesPerReplica": 1})
    assert variables(single)["RANK"] == told["PET_NODE_RANK"]


async def test_credentials_are_named_never_shown(cluster: FakeCluster) -> None:
    """X-01: the operator reads no Secret; the program finds keys and token under the names libraries read."""
    await training(cluster, secrets={"huggingface": {"secretRef": {"name": "hub"}}})
    told = variables(cluster)
    assert told["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "finetune-storage", "key": "AWS_ACCESS_KEY_ID", "optional": True}}
    assert told["HF_TOKEN_PATH"] == "/var/run/finetune/secrets/huggingface/HF_TOKEN"
    of_secret = {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN", "optional": True}}
    assert (told["HF_TOKEN"], told["HUGGINGFACE_HUB_TOKEN"]) == (of_secret, of_secret)
    assert told["FINETUNE_OUTPUT_URI"].startswith("s3://finetune/default/demo/")


async def test_a_token_is_passed_on_only_where_the_job_names_one(cluster: FakeCluster) -> None:
    """X-01: opt-in."""
    await training(cluster)
    assert not {"HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"} & variables(cluster).keys()


async def test_an_output_claim_outlives_the_pods(cluster: FakeCluster) -> None:
    """OUTPUT_DIR lies on the claim, in a directory of the job's own; the result is named by it."""
    await training(cluster, methodRef={"name": "own", "outputClaim": "results"})
    uid = cluster.manifest["metadata"]["uid"]
    assert variables(cluster)["OUTPUT_DIR"] == f"/mnt/output/demo-{uid}"
    assert {"name": "output", "persistentVolumeClaim": {"claimName": "results"}} in pod_spec(cluster)["volumes"]
    await finish(cluster)
    assert cluster.status.artifacts.final_uri == f"pvc://results/demo-{uid}"


async def finish(cluster: FakeCluster) -> None:
    for pod in cluster.pods():
        cluster.end_pod(pod["metadata"]["name"], 0)
    await cluster.until(lambda: cluster.phase == "Succeeded")


async def test_success_names_where_the_result_is(cluster: FakeCluster) -> None:
    await training(cluster)
    report(cluster, 100, current_step=20)
    await finish(cluster)
    artifacts = cluster.status.artifacts
    assert (artifacts.final_uri, artifacts.step, artifacts.kind) == (f"{cluster.status.output_uri}/final", 20, None)
    assert verbs(cluster) == set()


async def test_a_pause_releases_the_pods_and_a_resume_starts_them_again(cluster: FakeCluster) -> None:
    """Nobody can be asked: SIGTERM and the grace are the program's chance; the next run is told that it is one."""
    await training(cluster)
    report(cluster, 40, current_step=8)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    assert message(cluster) == (
        "Paused at step 8, as its program last said; the next run of TrainingMethod own goes on from the checkpoint it keeps itself."
    )
    assert cluster.status.attempts[-1].outcome == "Paused"
    assert (cluster.status.pause, verbs(cluster)) == (None, set())
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training")
    assert (variables(cluster)["FINETUNE_RUN"], cluster.status.attempts[-1].reason) == ("2", "Resumed")
    assert cluster.status.usage.lost_steps == 0


async def test_a_method_that_cannot_resume_says_so_beforehand() -> None:
    """No surprise: the condition names it, and the steps that are trained again are counted."""
    cluster = FakeCluster()
    add_method(cluster, resumable=False)
    await training(cluster)
    assert cluster.condition(NOT_RESUMABLE) == ("True", "Advice")
    report(cluster, 40, current_step=8)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    assert message(cluster).endswith("the next run of TrainingMethod own begins anew, for it keeps no checkpoint.")
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training")
    assert (cluster.status.usage.lost_steps, cluster.status.attempts[-1].lost_steps) == (8, 8)


async def test_time_is_counted_by_the_operator_and_limits_hold(cluster: FakeCluster) -> None:
    """The program has no clock of ours: the pods' time counts, over runs, and a limit pauses although posts arrive."""
    await training(cluster, limits={"maxActiveSeconds": 300})
    for _ in range(40):
        cluster.clock.advance(10)
        report(cluster, 1, current_step=1)
        await cluster.reconcile()
        if cluster.phase != "Training":
            break
    await cluster.until(lambda: cluster.phase == "Paused")
    assert cluster.status.reason == "LimitReached"
    usage = cluster.status.usage
    assert 300 <= usage.active_seconds <= 340
    assert usage.productive_seconds == pytest.approx(2 * usage.active_seconds, abs=0.2), "two ranks on CPU"


@pytest.mark.parametrize(("code", "phase", "reason"), [(EXIT_USER_ERROR, "Failed", "ConfigurationError"), (1, "Training", None)])
async def test_exit_codes_mean_what_the_contract_says(cluster: FakeCluster, code: int, phase: str, reason: str | None) -> None:
    """42: nothing a retry could mend, the last log lines tell why; 1: another try."""
    await training(cluster)
    cluster.end_pod(cluster.pods()[0]["metadata"]["name"], code)
    await cluster.until(lambda: cluster.phase == phase and (cluster.status.run == 2 or phase == "Failed"))
    assert (cluster.status.failure.failure_class if cluster.status.failure else None) == reason


async def test_a_stop_from_outside_is_free(cluster: FakeCluster) -> None:
    """75 after a drain: no restart is counted."""
    await training(cluster)
    cluster.end_pod(cluster.pods()[0]["metadata"]["name"], EXIT_STOPPED)
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training")
    assert (cluster.status.retry.used, cluster.status.attempts[-1].reason) == (0, "Preempted")


async def test_a_deleted_job_asks_no_store(cluster: FakeCluster) -> None:
    """The layout of the store is the program's own: no inspect pod is sent."""
    await training(cluster)
    cluster.api.delete(("jobs", NAMESPACE, "demo-r1"))
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training")
    assert verbs(cluster) == set()


async def test_a_gpu_job_needs_no_preflight() -> None:
    """Our preflight knows nothing of another program's data."""
    cluster = FakeCluster()
    add_method(cluster, resources={"device": "gpu", "gpusPerReplica": 2})
    await training(cluster)
    assert pod_spec(cluster)["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert verbs(cluster) == set()


async def test_what_the_store_holds_goes_with_the_job(cluster: FakeCluster) -> None:
    """output.retain Delete: the cleanup is ours, by our image."""
    await training(cluster, output={"retain": "Delete"})
    cluster.api.delete(("finetunejobs", NAMESPACE, "demo"))
    await cluster.settle_until_gone()
    assert verbs(cluster) == {"cleanup"}
    (job,) = [m for plural, kind, m in cluster.api.history if plural == "jobs" and kind == "ADDED" and "cleanup" in m["metadata"]["name"]]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:test"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"TEMPERATURE": "3"}, "spec.methodRef.parameters.TEMPERATURE: 3 is above the maximum 2"),
        ({"NUM_GENERATIONS": "many"}, 'spec.methodRef.parameters.NUM_GENERATIONS: "many" should be a whole number from 1 to 10'),
        ({"TEMPERATUR": "1"}, "spec.methodRef.parameters.TEMPERATUR: is no parameter of TrainingMethod own; did you mean TEMPERATURE?"),
        ({"LEARNING_RATE": "1"}, "spec.methodRef.parameters.LEARNING_RATE: is set by spec.training.learningRate: write that"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_refused_by_name(cluster: FakeCluster, parameters: dict[str, str], says: str) -> None:
    """B-01: field, value and fix, before anything runs."""
    create(cluster, methodRef={"name": "own", "parameters": parameters})
    await cluster.settle()
    assert (cluster.phase, valid(cluster)[:2], cluster.jobs()) == ("Pending", ("False", "Invalid"), [])
    assert says in valid(cluster)[2]


async def test_a_method_that_is_missing_is_waited_for() -> None:
    cluster = FakeCluster()
    create(cluster)
    await cluster.settle()
    assert valid(cluster)[:2] == ("False", "MethodUnavailable")
    assert "spec.methodRef.name: there is no TrainingMethod named own" in valid(cluster)[2]
    add_method(cluster)
    await cluster.until(lambda: cluster.phase == "Training")


async def test_a_method_that_is_not_valid_is_said() -> None:
    """One that an older schema took."""
    cluster = FakeCluster()
    add_method(cluster, parameters=[{"name": "RANK", "type": "integer"}])
    create(cluster)
    await cluster.settle()
    assert "spec.methodRef.name: TrainingMethod own itself is not valid: spec.parameters[0]: is set by the operator" in valid(cluster)[2]


async def test_without_the_cluster_role_it_says_what_is_missing() -> None:
    """Namespaced mode: objects of the cluster cannot be read."""
    cluster = FakeCluster(SETTINGS.model_copy(update={"cluster_reads": False}))
    add_method(cluster)
    create(cluster)
    await cluster.settle()
    assert valid(cluster)[:2] == ("False", "MethodUnavailable")
    assert "rbac.clusterReads" in valid(cluster)[2]
    assert not [call for call in cluster.api.calls if "trainingmethods" in call.path]


async def test_a_run_job_keeps_the_method_it_began_with(cluster: FakeCluster) -> None:
    """Pinned runs: neither an edit nor the removal of the method changes a training that has begun."""
    await training(cluster)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    cluster.api.change("trainingmethods", "", "own", {"spec": {"image": "registry.example/own:2", "resources": {"cpu": "1"}}})
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training")
    container = pod_spec(cluster)["containers"][0]
    assert (container["image"], container["resources"]["requests"]["cpu"]) == ("registry.example/own:1", "4")


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        ({"methodRef": {"name": "own", "parameters": {"TEMPERATURE": "1"}}}, "methodRef.parameters"),
        ({"methodRef": {"name": "own", "outputClaim": "results"}}, "methodRef.outputClaim"),
        ({"methodRef": {"name": "other"}}, "methodRef.name"),
        ({"methodRef": None, "method": "sft", "resources": {"device": "cpu", "processesPerReplica": 2}}, "method"),
    ],
)
async def test_what_makes_it_this_training_cannot_be_edited(cluster: FakeCluster, edit: dict[str, Any], path: str) -> None:
    add_method(cluster, "other")
    await training(cluster)
    cluster.edit({"desiredState": "Stopped"})
    await cluster.until(lambda: cluster.phase == "Stopped")
    cluster.edit({**edit, "desiredState": "Running"})
    await cluster.settle(rounds=30)
    assert valid(cluster)[:2] == ("False", "EditRefused")
    assert f"spec.{path} is " in valid(cluster)[2]


async def test_a_preset_may_choose_the_method(cluster: FakeCluster) -> None:
    """A job's own method wins over the preset's, and the other way round."""
    preset = {"methodRef": {"name": "own", "parameters": {"TEMPERATURE": "0.1"}}, "training": {"epochs": 7}}
    metadata = {"name": "team", "namespace": NAMESPACE}
    cluster.api.add("finetunepresets", {"apiVersion": API_VERSION, "kind": "FineTunePreset", "metadata": metadata, "spec": preset})
    cluster.create({"presetRef": {"name": "team"}, "resources": {}})
    await cluster.until(lambda: cluster.phase == "Training")
    assert (variables(cluster)["TEMPERATURE"], variables(cluster)["EPOCHS"]) == ("0.1", "7")
    assert cluster.status.resolved["methodRef.name"].source == "preset"
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    cluster.api.delete(("finetunepresets", NAMESPACE, "team"))
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training")
    assert variables(cluster)["TEMPERATURE"] == "0.1"


async def test_a_checkpoint_cannot_be_asked_for(cluster: FakeCluster) -> None:
    await training(cluster)
    cluster.annotate(**{"finetune.dev/request": "checkpoint/1"})
    await cluster.settle()
    assert "TrainingMethod own keeps its own checkpoints" in cluster.event("RequestIgnored")


ACTIONS = ("look", "wait", "suspend", "resume", "report", "crash", "drained", "done", "vanish", "replicas")


async def act(cluster: FakeCluster, action: str) -> None:
    """What may happen to a job and its pods."""
    running = [pod["metadata"]["name"] for pod in cluster.pods() if pod["status"].get("phase") == "Running"]
    codes = {"crash": 1, "drained": EXIT_STOPPED, "done": 0}
    match action:
        case "wait":
            cluster.clock.advance(45)
        case "suspend" | "resume":
            cluster.edit({"suspend": action == "suspend"})
        case "replicas":
            cluster.edit({"replicas": 0 if cluster.manifest["spec"]["replicas"] else 1})
        case "report" if running:
            report(cluster, 10, current_step=cluster.status.run * 5)
        case "vanish" if cluster.jobs():
            cluster.api.delete(("jobs", NAMESPACE, cluster.jobs()[-1]["metadata"]["name"]))
        case _ if action in codes and running:
            cluster.end_pod(running[0], codes[action])
        case _:
            pass
    await cluster.reconcile()
    cluster.step()


@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=25), resumable=st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_happens_it_comes_to_rest(actions: list[str], resumable: bool) -> None:
    """One workload at most, phases follow the table, time and lost steps never fall, no verb is sent, a plan carried out is empty."""

    async def live() -> None:
        cluster = FakeCluster()
        add_method(cluster, resumable=resumable)
        create(cluster)
        phase, active, lost = Phase.PENDING, 0.0, 0
        for action in actions:
            await act(cluster, action)
            status = cluster.status
            assert may_follow(phase, status.phase), f"{phase} to {status.phase} by {action}"
            assert len([job for job in cluster.jobs() if "deletionTimestamp" not in job["metadata"]]) <= 1
            assert status.usage.active_seconds >= active
            assert status.usage.lost_steps >= lost
            assert not (resumable and status.usage.lost_steps)
            phase, active, lost = status.phase, status.usage.active_seconds, status.usage.lost_steps
        for _ in range(40):
            before = cluster.fingerprint()
            await cluster.reconcile()
            cluster.step()
            if cluster.fingerprint() == before and cluster.wake != 0:
                break
        writes = len([call for call in cluster.api.calls if call.is_write])
        await cluster.reconcile()
        assert len([call for call in cluster.api.calls if call.is_write]) == writes
        assert verbs(cluster) == set()
        assert cluster.status.pause is None

    asyncio.run(live())
