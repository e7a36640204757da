"""What breaks, and what becomes of the job: classes, retries, lost nodes, blocked starts, vanished Jobs."""

from __future__ import annotations

import itertools

import pytest

from finetune_api.constants import API_VERSION, GPU_TYPE_KIND
from finetune_api.contract.failures import EXIT_PEER_LOST, EXIT_UNKNOWN, EXIT_USER_ERROR, REACTIONS, FailureClass, Retry
from finetune_api.contract.store import CheckpointRef
from finetune_api.contract.termination import TerminationMessage
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from tests.support.operator_cluster import NAMESPACE, FakeCluster, failure


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def training(cluster: FakeCluster, step: int = 1, **spec: object) -> None:
    cluster.create(dict(spec))
    await cluster.until(
        lambda: cluster.phase == "Training" and cluster.status.progress is not None and cluster.status.progress.step >= step, train=5
    )


async def test_a_user_error_fails_at_once_with_the_sentence_and_the_advice(cluster: FakeCluster) -> None:
    """P-09, Z-06, Z-07: class, message, exit code, rank, log lines, advice; no restart, no pod running."""
    await training(cluster)
    cluster.end_pod(
        "demo-r1-0", EXIT_USER_ERROR, failure(FailureClass.DATA, EXIT_USER_ERROR, message="row 7 of train.jsonl has no field text")
    )
    await cluster.settle()
    status = cluster.status
    assert status.failure is not None
    assert status.failure.model_dump() == {
        "failure_class": FailureClass.DATA,
        "message": "row 7 of train.jsonl has no field text",
        "exit_code": EXIT_USER_ERROR,
        "failed_rank": 0,
        "last_log_lines": "Traceback: it broke",
        "advice": REACTIONS[FailureClass.DATA].advice,
        "run": 1,
    }
    assert (cluster.phase, status.reason, status.replicas, status.run) == ("Failed", "DataError", 0, 1)
    assert cluster.condition("Failed") == ("True", "DataError")
    assert cluster.condition("Stalled") == ("True", "DataError")
    assert cluster.condition("Ready") == ("False", "DataError")
    assert [(a.outcome, a.exit_code) for a in status.attempts] == [("DataError", EXIT_USER_ERROR)]
    assert "Failed" in cluster.story()


@pytest.mark.parametrize("failure_class", FailureClass)
async def test_every_class_has_its_reaction_and_advice(cluster: FakeCluster, failure_class: FailureClass) -> None:
    """AC-60, Z-07: the end with advice, a counted restart, or one that costs nothing."""
    await training(cluster)
    reaction = REACTIONS[failure_class]
    assert reaction.advice.endswith(".")
    cluster.end_pod("demo-r1-0", reaction.exit_code, failure(failure_class, reaction.exit_code))
    await cluster.settle()
    status = cluster.status
    assert status.attempts[0].outcome == failure_class
    if reaction.retry is Retry.NEVER:
        assert status.failure is not None
        assert (cluster.phase, status.failure.failure_class, status.failure.advice) == ("Failed", failure_class, reaction.advice)
        assert reaction.advice in cluster.event("Failed")
        return
    assert (cluster.phase, status.retry.used) == ("Starting", 1 if reaction.retry is Retry.COUNTED else 0)
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)


async def test_a_job_over_its_deadline_is_started_again_and_counted(cluster: FakeCluster) -> None:
    """Z-07: a policy set activeDeadlineSeconds; the message says so, and where the training goes on."""
    await training(cluster, step=25)
    cluster.fail_job("demo-r1", "DeadlineExceeded", "Job was active longer than specified deadline")
    await cluster.settle()
    status = cluster.status
    assert (cluster.phase, status.reason, status.attempts[0].outcome, status.retry.used) == (
        "Starting", "BackOff", "DeadlineExceeded", 1,
    )  # fmt: skip
    assert "Job was active longer than specified deadline" in cluster.event("Retrying")
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    assert cluster.status.attempts[-1].from_step == 25, "SIGTERM still saves"


async def test_failed_pods_stay_for_their_logs_then_go(cluster: FakeCluster) -> None:
    """The culprit is there for kubectl logs for a while; the ConfigMap stays for a retry."""
    await training(cluster)
    cluster.end_pod("demo-r1-0", EXIT_USER_ERROR, failure(FailureClass.DATA, EXIT_USER_ERROR))
    await cluster.settle()
    assert [pod["metadata"]["name"] for pod in cluster.pods()] == ["demo-r1-0"]
    cluster.clock.advance(cluster.settings.finished_retention_seconds + 1)
    await cluster.settle()
    assert sorted(key[0] for key in cluster.api.objects if key[0] != "events") == ["configmaps", "finetunejobs"]
    assert cluster.phase == "Failed"


async def test_a_retry_request_acts_once(cluster: FakeCluster) -> None:
    """Design §3: Failed ends only by retry/<token>, and each token acts once."""
    await training(cluster)
    cluster.end_pod("demo-r1-0", EXIT_USER_ERROR, failure(FailureClass.DATA, EXIT_USER_ERROR))
    await cluster.settle()
    cluster.edit({"logging": {"steps": 5}})
    await cluster.settle(advance=True, rounds=3)
    assert cluster.phase == "Failed"
    cluster.annotate(**{"finetune.dev/request": "retry/1"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert (cluster.status.run, cluster.status.attempts[-1].reason, cluster.status.failure) == (2, "Retried", None)
    assert cluster.status.last_handled_request == "retry/1"
    cluster.end_pod("demo-r2-0", EXIT_USER_ERROR, failure(FailureClass.DATA, EXIT_USER_ERROR, run=2))
    await cluster.settle(advance=True, rounds=5)
    assert (cluster.phase, cluster.status.run) == ("Failed", 2)


async def test_counted_failures_back_off_and_end(cluster: FakeCluster) -> None:
    """retry.limit without a new checkpoint in between; the wait doubles."""
    cluster.create({"retry": {"limit": 2, "backoffSeconds": 10}})
    starts = []
    for run in (1, 2, 3):
        await cluster.until(lambda run=run: cluster.status.run == run and bool(cluster.current()))  # type: ignore[misc]
        starts.append(cluster.clock.monotonic())
        cluster.end_pod(f"demo-r{run}-0", EXIT_UNKNOWN)
        await cluster.settle()
    await cluster.settle()
    assert (cluster.phase, cluster.status.retry.used) == ("Failed", 2)
    assert cluster.status.failure is not None
    assert "retry.limit is 2" in cluster.status.failure.message
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert 10 <= waits[0] < 20 <= waits[1] < 30


async def test_a_new_checkpoint_sets_the_budget_back(cluster: FakeCluster) -> None:
    """Progress between failures: the budget never runs out."""
    cluster.create({"retry": {"limit": 1, "backoffSeconds": 1}})
    for run in (1, 2, 3):
        await cluster.until(lambda run=run: cluster.status.run == run and cluster.phase == "Training", train=25)  # type: ignore[misc]
        cluster.end_pod(f"demo-r{run}-0", EXIT_UNKNOWN)
        await cluster.settle()
    assert cluster.phase == "Starting"
    assert [(a.run, a.from_step) for a in cluster.status.attempts] == [(1, 0), (2, 20), (3, 40)]


async def test_oom_killed_is_named(cluster: FakeCluster) -> None:
    """Z-04: 137 with the reason of the container runtime."""
    await training(cluster)
    cluster.end_pod("demo-r1-0", 137, reason="OOMKilled")
    await cluster.settle()
    assert (cluster.status.attempts[-1].outcome, cluster.status.attempts[-1].exit_code) == ("OOMKilled", 137)
    assert (cluster.phase, cluster.status.retry.used) == ("Starting", 1)


async def test_the_first_failure_counts_not_its_victims(cluster: FakeCluster) -> None:
    """The culprit among the pods: rank 1 broke, rank 0 lost its peer."""
    await training(cluster, replicas=2)
    cluster.end_pod("demo-r1-0", EXIT_PEER_LOST, failure(FailureClass.PEER_LOST, EXIT_PEER_LOST))
    cluster.end_pod("demo-r1-1", EXIT_USER_ERROR, failure(FailureClass.LOSS_DIVERGED, EXIT_USER_ERROR, message="loss is NaN at step 4"))
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason) == ("Failed", "LossDiverged")


async def test_a_divergence_that_is_gone_back_from(cluster: FakeCluster) -> None:
    """F-13, retry.onDivergence: rewind: the trainer says so, the next run starts at once and is no counted restart."""
    await training(cluster, replicas=2)
    cluster.end_pod("demo-r1-1", EXIT_USER_ERROR, failure(FailureClass.LOSS_DIVERGED, EXIT_USER_ERROR, message="loss is NaN at step 4"))
    told = failure(FailureClass.LOSS_DIVERGED, EXIT_USER_ERROR, message="loss is NaN at step 4; the next attempt goes back")
    cluster.end_pod("demo-r1-0", EXIT_USER_ERROR, told.model_copy(update={"will_rewind": True}))
    await cluster.until(lambda: cluster.status.run == 2)
    assert (cluster.status.attempts[0].outcome, cluster.status.retry.used) == ("LossDiverged", 0)
    assert cluster.status.failure is None
    assert "Rewinding" in cluster.story()


async def test_a_node_that_vanishes(cluster: FakeCluster) -> None:
    """Design §4, OP-11: NodeLost, not counted; the next run starts without waiting for the lost pod."""
    await training(cluster, step=25, replicas=2)
    cluster.kill_node()
    cluster.step()
    await cluster.settle()
    assert cluster.status.run == 1
    cluster.clock.advance(31)
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    status = cluster.status
    assert [(a.run, a.reason, a.outcome) for a in status.attempts] == [(1, "Created", "NodeLost"), (2, "NodeLost", None)]
    assert (status.attempts[-1].from_step, status.retry.used) == (20, 0)
    assert "NodeLost" in cluster.story()
    propagation = [call.body["propagationPolicy"] for call in cluster.api.calls if call.method == "DELETE" and "/jobs/" in call.path]
    assert propagation == ["Background"]
    still_there = {pod["metadata"]["name"] for pod in cluster.pods() if pod["spec"]["nodeName"] in cluster.dead_nodes}
    assert still_there == {"demo-r1-0", "demo-r1-1"}
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def test_a_pod_left_behind_counts_no_more_whatever_the_clock_says(cluster: FakeCluster) -> None:
    """Design §4, dead node: the run after it was made because it is lost; a wall clock put back does not bring it to life."""
    await training(cluster, step=25)
    cluster.kill_node()
    cluster.clock.advance(31)
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.clock.advance(-3600)
    await cluster.settle()
    assert len(cluster.pods()) == 1
    assert (cluster.phase, cluster.status.replicas) == ("Paused", 0)


async def test_a_drain_is_given_its_grace(cluster: FakeCluster) -> None:
    """An evicted pod on a node that answers may still be saving: it is not lost before its grace and 30 s are over."""
    await training(cluster, step=25)
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": cluster.clock.text(),
    }
    cluster.dead_nodes.add("node-1")
    cluster.api.change("pods", NAMESPACE, "demo-r1-0", {"status": {"conditions": [condition, {"type": "Ready", "status": "True"}]}})
    cluster.api.delete(("pods", NAMESPACE, "demo-r1-0"))
    cluster.clock.advance(120 + 29)
    await cluster.settle()
    assert cluster.status.attempts[-1].outcome is None
    cluster.clock.advance(2)
    await cluster.settle()
    assert cluster.status.attempts[0].outcome == "NodeLost"


async def test_a_deleted_pod_is_a_disruption(cluster: FakeCluster) -> None:
    """Kubectl delete pod: the group starts again from what the trainer saved, uncounted."""
    await training(cluster, step=25)
    cluster.api.delete(("pods", NAMESPACE, "demo-r1-0"))
    cluster.step()
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    assert (cluster.status.attempts[0].outcome, cluster.status.retry.used) == ("Preempted", 0)


@pytest.mark.parametrize(
    ("waiting", "failure_class"), [("ImagePullBackOff", "ImagePull"), ("CreateContainerConfigError", "ConfigurationError")]
)
async def test_a_container_that_cannot_start_is_given_up_soon(cluster: FakeCluster, waiting: str, failure_class: str) -> None:
    """No GPU is held by a pod that never starts; phase Failed only when its pods are gone."""
    cluster.waiting_reason = waiting
    cluster.create()
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason) == ("Starting", waiting)
    assert cluster.condition("StartBlocked") == ("True", waiting)
    cluster.clock.advance(61)
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason, cluster.pods(), cluster.jobs()) == ("Failed", failure_class, [], [])


async def test_a_pull_that_works_in_the_end_is_forgiven(cluster: FakeCluster) -> None:
    cluster.waiting_reason = "ErrImagePull"
    cluster.create()
    await cluster.settle()
    cluster.clock.advance(30)
    cluster.waiting_reason = None
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("StartBlocked") is None


async def test_no_node_fits_is_waiting_not_failing(cluster: FakeCluster) -> None:
    """L-06, design §3: Queued with the scheduler's words, Ready so that GitOps waves go on."""
    cluster.cordoned = True
    cluster.create()
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason) == ("Queued", "Unschedulable")
    assert cluster.condition("Ready") == ("True", "Unschedulable")
    assert cluster.condition("Admitted") == ("False", "Unschedulable")
    cluster.clock.advance(7 * 86400)
    await cluster.settle()
    assert cluster.phase == "Queued"
    cluster.cordoned = False
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("Admitted") == ("True", "PodsScheduled")


async def test_a_queue_that_suspends_and_goes_on(cluster: FakeCluster) -> None:
    """Design §4: a queue owns the Job's suspend; stopping and starting the group inside the run is another attempt."""
    await training(cluster, step=25)
    cluster.api.change("jobs", NAMESPACE, "demo-r1", {"spec": {"suspend": True}})
    cluster.api.remove(("pods", NAMESPACE, "demo-r1-0"))
    await cluster.reconcile()
    assert (cluster.phase, cluster.status.reason) == ("Queued", "JobSuspended")
    cluster.api.change("jobs", NAMESPACE, "demo-r1", {"spec": {"suspend": False}, "status": {"startTime": None}})
    del cluster.trainers["demo-r1"]
    await cluster.until(lambda: cluster.status.attempt_count == 2, train=1)
    assert [(a.run, a.attempt, a.reason, a.outcome) for a in cluster.status.attempts] == [
        (1, 1, "Created", "Preempted"),
        (1, 2, "Preempted", None),
    ]
    assert cluster.status.run == 1


async def test_a_job_deleted_by_somebody_is_asked_of_the_store(cluster: FakeCluster) -> None:
    """Design §4, trial 22: a recorded run whose Job is gone is never assumed new."""
    await training(cluster, step=25)
    cluster.api.delete(("jobs", NAMESPACE, "demo-r1"))
    cluster.step()
    await cluster.reconcile()
    assert (cluster.phase, cluster.status.reason, [job["metadata"]["name"] for job in cluster.jobs("inspect")]) == (
        "Starting", "Inspecting", ["demo-inspect-1"],
    )  # fmt: skip
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    latest = cluster.status.checkpoints.latest
    assert latest is not None
    assert (latest.trigger, cluster.status.attempts[-1].from_step) == ("signal", latest.step)
    assert cluster.jobs("inspect") == []


async def test_a_finished_run_whose_job_is_gone_is_not_trained_again(cluster: FakeCluster) -> None:
    """The operator was away while it finished and its Job went."""
    await training(cluster, step=25)
    cluster.store.final = True
    cluster.api.delete(("jobs", NAMESPACE, "demo-r1"))
    cluster.step()
    await cluster.settle()
    assert (cluster.phase, cluster.status.run) == ("Succeeded", 1)
    assert cluster.status.artifacts.final_uri == f"{cluster.status.output_uri}/final"


async def test_last_words_name_a_checkpoint_no_post_told_of(cluster: FakeCluster) -> None:
    await training(cluster)
    cluster.store.checkpoints.append((1, 7))
    words = failure(FailureClass.PEER_LOST, EXIT_PEER_LOST, checkpoint=CheckpointRef(attempt=1, step=7))
    cluster.end_pod("demo-r1-0", EXIT_PEER_LOST, words)
    await cluster.settle()
    latest = cluster.status.checkpoints.latest
    assert latest is not None
    assert (latest.step, latest.uri) == (7, f"{cluster.status.output_uri}/a1/checkpoint-7")


async def test_preflight_before_gpus_are_asked_for(cluster: FakeCluster) -> None:
    """Z-01: a CPU pod first; the verdict is kept for every later run of the same thing."""
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.reconcile()
    assert (cluster.phase, cluster.status.reason, cluster.jobs()) == ("Validating", "Preflight", [])
    verb = cluster.jobs("preflight")[0]["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in str(verb["containers"][0]["resources"])
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.preflight_digest
    assert cluster.jobs("preflight") == []
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    made = [m for plural, kind, m in cluster.api.history if plural == "jobs" and kind == "ADDED" and "preflight" in m["metadata"]["name"]]
    assert len(made) == 1


async def test_a_preflight_that_finds_a_user_error_fails_the_job_without_a_run(cluster: FakeCluster) -> None:
    """Z-01, issue §7: a clear condition, no GPU held, no crash loop."""
    cluster.verb_exit["preflight"] = failure(
        FailureClass.STORAGE_AUTH, EXIT_USER_ERROR, message="Secret finetune-storage has no key AWS_SECRET_ACCESS_KEY"
    )
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.settle(advance=True, rounds=10)
    assert (cluster.phase, cluster.status.reason, cluster.status.run, cluster.jobs("preflight")) == ("Failed", "StorageAuth", 0, [])
    del cluster.verb_exit["preflight"]
    cluster.annotate(**{"finetune.dev/request": "retry/1"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


MEMORY = {
    "parameters": 8_030_261_248, "trainableParameters": 6_815_744, "strategy": "none", "quantization": "4bit", "gpuBytes": 16 * 2**30,
    "terms": {"weights": 6_000_000_000, "activations": 2_000_000_000, "optimizer": 0}, "totalBytes": 8_000_000_000, "reason": "4-bit base",
}  # fmt: skip


async def test_the_length_a_preflight_estimated_is_in_the_status(cluster: FakeCluster) -> None:
    """O-15, J-06: steps, checkpoints and their size, before a pod trains."""
    training = {
        "steps": 1000,
        "stopBy": "steps",
        "checkpoints": 10,
        "checkpointBytes": 82_000_000,
        "keptBytes": 164_000_000,
        "storeBytes": 400_000_000,
        "diskBytes": 246_000_000,
    }
    result: dict[str, object] = {"training": training, "warnings": {"SingleGpuRecommended": "one would do"}}
    cluster.verb_exit["preflight"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result=result)
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase in ("Starting", "Training"))
    estimate = cluster.status.estimate
    assert estimate is not None
    assert estimate.training is not None
    assert estimate.training.model_dump(by_alias=True) == training
    assert [condition.message for condition in cluster.status.conditions if condition.type == "SingleGpuRecommended"] == ["one would do"]


@pytest.mark.parametrize("fits", [True, False])
async def test_the_memory_a_preflight_estimated_is_in_the_status(cluster: FakeCluster, fits: bool) -> None:
    """N-01, N-03: terms and reason, whether the job may start or not."""
    result: dict[str, object] = {"memory": MEMORY, "warnings": {"QuantizationDecided": "4-bit base"} if fits else {}}
    cluster.verb_exit["preflight"] = (
        TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result=result)
        if fits
        else failure(FailureClass.CONFIGURATION, EXIT_USER_ERROR, message="InsufficientVRAM: ...").model_copy(update={"result": result})
    )
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase in ("Starting", "Training", "Failed"))
    assert (cluster.phase == "Failed") is not fits
    estimate = cluster.status.estimate
    assert estimate is not None
    assert estimate.memory is not None
    assert estimate.memory.terms == {"weights": 6_000_000_000, "activations": 2_000_000_000}
    assert (estimate.memory.total_bytes, estimate.memory.quantization, estimate.memory.reason) == (8_000_000_000, "4bit", "4-bit base")
    decided = [condition.message for condition in cluster.status.conditions if condition.type == "QuantizationDecided"]
    assert decided == (["4-bit base"] if fits else [])


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (50, "GpuTypes with enough memory (resources.gpuType): a100-80, h200."),
        (100, "GpuTypes with enough memory (resources.gpuType): h200."),
        (300, "No GpuType has so much memory."),
    ],
)
async def test_gpus_that_fit_are_named(cluster: FakeCluster, needed: int, said: str) -> None:
    """N-05: of the catalogue, the smallest first."""
    for name in ("t4", "h200", "a100-80"):
        spec = dict(SHIPPED_GPU_TYPES[name])
        entry = {"apiVersion": API_VERSION, "kind": GPU_TYPE_KIND, "metadata": {"name": name}, "spec": spec}
        cluster.api.add("gputypes", entry, namespace="")
    result: dict[str, object] = {"memory": MEMORY | {"totalBytes": needed * 2**30}}
    cluster.verb_exit["preflight"] = failure(FailureClass.CONFIGURATION, EXIT_USER_ERROR, message="InsufficientVRAM: too much.").model_copy(
        update={"result": result}
    )
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase == "Failed")
    assert cluster.status.failure is not None
    assert cluster.status.failure.message == f"InsufficientVRAM: too much. {said}"


@pytest.mark.parametrize(("written", "asked"), [(None, {"memory": "51200Mi"}), ("32Gi", {"memory": "32Gi"})])
async def test_main_memory_for_an_offload_is_requested(cluster: FakeCluster, written: str | None, asked: dict[str, str]) -> None:
    """M-04: what preflight found, as a request without a limit, unless the job says otherwise itself."""
    memory = MEMORY | {"strategy": "zero2_offload", "podBytes": 50 * 2**30}
    cluster.verb_exit["preflight"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result={"memory": memory})
    cluster.create({"resources": {"device": "gpu", "memory": written}, "distributed": {"strategy": "zero2_offload"}, "replicas": 2})
    await cluster.until(lambda: cluster.phase in ("Starting", "Training"))
    (job,) = cluster.jobs("trainer")
    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == asked
    assert resources["limits"] == {"nvidia.com/gpu": "1", **({"memory": written} if written is not None else {})}
    estimate = cluster.status.estimate
    assert estimate is not None
    assert estimate.memory is not None
    assert estimate.memory.pod_bytes == 50 * 2**30


@pytest.mark.parametrize("is_ready", [True, False])
async def test_whether_the_image_can_train_is_a_condition(cluster: FakeCluster, is_ready: bool) -> None:
    """Z-01: EnvironmentReady, of a job that may start and of one that may not."""
    said = {"isReady": is_ready, "reason": "Checked" if is_ready else "CudaMissing", "message": "Python 3.11, torch 2.13.0"}
    cluster.verb_exit["preflight"] = (
        TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result={"environment": said})
        if is_ready
        else failure(FailureClass.CONFIGURATION, EXIT_USER_ERROR, message="no CUDA").model_copy(update={"result": {"environment": said}})
    )
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase in ("Training", "Failed"), train=1)
    assert (cluster.phase == "Failed") is not is_ready
    assert cluster.condition("EnvironmentReady") == (str(is_ready), said["reason"])


async def test_whether_the_token_is_one_is_a_condition(cluster: FakeCluster) -> None:
    """X-03: TokenValid."""
    said = {"status": "True", "reason": "Checked", "message": "The key HF_TOKEN of Secret hub is a token of tester."}
    cluster.verb_exit["preflight"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result={"token": said})
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("TokenValid") == ("True", "Checked")


async def test_a_preflight_without_an_answer_does_not_keep_a_job_from_training(cluster: FakeCluster) -> None:
    cluster.verb_exit["preflight"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=EXIT_UNKNOWN)
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert "PreflightInconclusive" in cluster.story()
    assert cluster.condition("EnvironmentReady") == ("Unknown", "PreflightInconclusive")


async def test_a_preflight_asks_again_while_the_store_is_away(cluster: FakeCluster) -> None:
    cluster.verb_exit["preflight"] = failure(FailureClass.STORAGE_UNAVAILABLE, 77, message="no answer from minio:9000")
    cluster.create({"resources": {"device": "gpu"}, "retry": {"limit": 2, "backoffSeconds": 10}})
    await cluster.settle()
    assert (cluster.phase, cluster.status.retry.used) == ("Starting", 1)
    del cluster.verb_exit["preflight"]
    await cluster.until(lambda: cluster.phase == "Training", train=1)
