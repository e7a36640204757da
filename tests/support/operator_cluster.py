"""A cluster around the fake API server: garbage collector, Job controller, kubelet and trainer, and the real reconciler on top."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from finetune_api.constants import API_VERSION, KIND, LABEL_COMPONENT, LABEL_JOB, LABEL_RUN, PLURAL
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.progress import CheckpointReport, FineTuneProgress, Finished, ProgressPost, Stopped, TrainerPhase, TrainerStatus
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import CheckpointRef, Trigger, UsageSeconds, checkpoint_prefix
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import FineTuneJobStatus, StatusProgress
from finetune_operator.cluster.client import MERGE_PATCH, Answer, Client
from finetune_operator.cluster.events import EventWriter
from finetune_operator.cluster.observe import JobKey
from finetune_operator.cluster.rbac import CLUSTER, JOB_NAMESPACES
from finetune_operator.feed import read_known
from finetune_operator.plan.commands import commands_of
from finetune_operator.plan.conditions import format_time
from finetune_operator.plan.names import run_of
from finetune_operator.progress.numbers import patch_of, progress_of
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import PlanSettings
from tests.support.fake_api import APPLY_PATCH, FOREGROUND, Clock, CrashError, FakeApi, Key, Manifest

NAMESPACE = "default"
JOBS_PATH = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{PLURAL}"
SETTINGS = PlanSettings(
    version="1.0.0",
    trainer_image="trainer:test",
    storage_bucket="finetune",
    progress_url="https://operator.finetune.svc:8443",
)
MINIMAL_SPEC: Mapping[str, Any] = {
    "model": {"uri": "s3://models/tiny"},
    "dataset": {"uri": "configmap://rows/train.jsonl"},
    "resources": {"device": "cpu"},
    "replicas": 1,
    "suspend": False,
    "desiredState": "Running",
    "pausePolicy": {"timeoutSeconds": 600, "ifUnsaved": "Wait", "graceSeconds": 120},
    "retry": {"limit": 3, "backoffSeconds": 10},
}
RIGHTS = {(right.resource, verb) for right in (*JOB_NAMESPACES, *CLUSTER) for verb in right.verbs}
"""What the operator may do, as in a cluster: nothing else is answered."""
TOTAL_STEPS = 100
Use = Literal["starting", "productive", "checkpointing", "replayed", "evaluating"]


def job_manifest(name: str = "demo", spec: Mapping[str, Any] | None = None, annotations: Mapping[str, str] | None = None) -> Manifest:
    """A FineTuneJob as the API server stores it (schema defaults filled in)."""
    merged: Manifest = {**copy.deepcopy(dict(MINIMAL_SPEC)), **(spec or {})}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": dict(annotations or {})}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": merged}


@dataclass
class TrainerModel:
    """What the simulated trainer of a run has done."""

    attempt: int
    step: int = 0
    parent: CheckpointRef | None = None
    checkpoints: list[tuple[int, int, Trigger]] = field(default_factory=list)
    stopped: Stopped | None = None
    acknowledged: list[str] = field(default_factory=list)
    finished: bool = False
    early_stopped: bool = False


@dataclass
class Store:
    """What is in the simulated object store: survives everything."""

    attempts: int = 0
    checkpoints: list[tuple[int, int]] = field(default_factory=list)
    final: bool = False

    @property
    def newest(self) -> CheckpointRef | None:
        return CheckpointRef(attempt=self.checkpoints[-1][0], step=self.checkpoints[-1][1]) if self.checkpoints else None


@dataclass(frozen=True)
class NotedCa:
    """Where the CA was to be brought is noted only: the CA itself is another module's."""

    namespaces: set[str]

    async def publish(self, namespace: str) -> None:
        self.namespaces.add(namespace)

    async def keep(self, namespace: str) -> None:
        self.namespaces.add(namespace)


class FakeCluster:
    """One FineTuneJob's world. ``dead_nodes``: pods on them neither start nor end."""

    def __init__(self, settings: PlanSettings = SETTINGS, *, name: str = "demo") -> None:
        self.clock = Clock()
        self.api = FakeApi(self.clock, rights=RIGHTS)
        self.settings = settings
        self.key = JobKey(NAMESPACE, name)
        self.store = Store()
        self.trainers: dict[str, TrainerModel] = {}
        self.dead_nodes: set[str] = set()
        self.lost_nodes: set[str] = set()
        """Nodes that were dead once: their pods may still be there, and are nobody's any more."""
        self._nodes = 1
        self.verb_exit: dict[str, TerminationMessage] = {}
        """Answer of a verb's pod; default: success."""
        self.cordoned = False
        """No pod is scheduled."""
        self.waiting_reason: str | None = None
        """Why containers cannot start."""
        self.posts_arrive = True
        self.activity: TrainerPhase = "Training"
        """What a trainer posts that neither holds nor has finished."""
        self.use: Use = "productive"
        """What the trainers' time goes to."""
        self.used_seconds = dict.fromkeys(get_args(Use), 0.0)
        """The trainers' clocks: a second a step, through all attempts."""
        self.checkpoint_seconds: tuple[float, float] | None = None
        """How long a save and an upload take, as the trainer measures it."""
        self.facts = {"dtype": "float32"}
        """What the trainer finds out."""
        self.wake: float | None = 0.0
        self.crashes = 0
        self.ca_namespaces: set[str] = set()
        """Where the present operator process was asked to publish the CA."""
        self.reconciler = self.new_operator()

    # --- the operator ---

    def new_operator(self) -> Reconciler:
        """A fresh process: nothing but the API server's contents survives."""
        client = Client(self.api)
        self.events = EventWriter(client, identity="test", now=self.clock.now)

        self.ca_namespaces.clear()

        self.reconciler = Reconciler(
            client,
            self.events,
            ca=NotedCa(self.ca_namespaces),
            settings=self.settings,
            now=self.clock.now,
        )
        return self.reconciler

    async def reconcile(self) -> None:
        """One look at the job."""
        try:
            self.wake = await self.reconciler.reconcile(self.key)
            await self.events.flush()
        except RetryLater as later:
            self.wake = later.seconds
        except CrashError:
            self.crashes += 1
            self.new_operator()
            self.wake = 0.0

    async def settle(self, *, rounds: int = 60, advance: bool = False) -> None:
        """Reconcile and step until nothing changes; ``advance``: also let time pass to the next wake-up (at most ``rounds`` times)."""
        for _ in range(rounds):
            before = self.fingerprint()
            await self.reconcile()
            self.step()
            if self.fingerprint() != before:
                continue
            if not advance or self.wake is None or self.wake < 0:
                return
            self.clock.advance(max(self.wake, 0.1))
        assert advance, "the cluster does not come to rest"

    async def settle_until_gone(self) -> None:
        """Reconcile and step until the job is gone, or nothing changes any more."""
        for _ in range(60):
            before = self.fingerprint()
            await self.reconcile()
            self.step()
            if self.fingerprint() == before:
                return

    async def until(self, condition: Callable[[], bool], *, rounds: int = 200, train: int = 0, save_every: int = 20) -> None:
        """Reconcile, step, let time pass (and the trainer train ``train`` steps a round) until the condition holds."""
        for _ in range(rounds):
            await self.reconcile()
            self.step()
            if condition():
                return
            if train:
                await self.train(train, save_every=save_every)
            self.clock.advance(1.0)
        raise AssertionError(f"never so: phase {self.phase}, {self.status.reason}; {self.story()}")

    # --- looking ---

    def fingerprint(self) -> object:
        return (self.api._version, len(self.api.objects))

    @property
    def is_gone(self) -> bool:
        return self.api.get("finetunejobs", self.key.name) is None

    @property
    def manifest(self) -> Manifest:
        found = self.api.get("finetunejobs", self.key.name)
        assert found is not None
        return found

    @property
    def status(self) -> FineTuneJobStatus:
        return FineTuneJobStatus.model_validate(self.manifest.get("status") or {})

    @property
    def phase(self) -> str:
        return str(self.status.phase)

    def condition(self, kind: str) -> tuple[str, str] | None:
        found = next((c for c in self.status.conditions if c.type == kind), None)
        return (found.status, found.reason) if found is not None else None

    def pods(self, component: str = "trainer") -> list[Manifest]:
        return [pod for pod in self.api.find("pods") if pod["metadata"]["labels"].get(LABEL_COMPONENT) == component]

    def jobs(self, component: str = "trainer") -> list[Manifest]:
        return [job for job in self.api.find("jobs") if job["metadata"]["labels"].get(LABEL_COMPONENT) == component]

    def run_config(self, run: int) -> RunConfig:
        """What a run was told."""
        manifest = self.api.get("configmaps", f"{self.key.name}-r{run}")
        assert manifest is not None
        return RunConfig.model_validate_json(manifest["data"]["config.json"])

    def story(self) -> list[str]:
        """Reasons of the events, in order."""
        return [manifest["reason"] for plural, kind, manifest in self.api.history if plural == "events" and kind == "ADDED"]

    def event(self, reason: str) -> str:
        """Message of the last event of a reason."""
        return str(next(m["message"] for plural, _, m in reversed(self.api.history) if plural == "events" and m["reason"] == reason))

    # --- the user ---

    def create(self, spec: Mapping[str, Any] | None = None) -> None:
        self.api.add("finetunejobs", job_manifest(self.key.name, spec))

    def edit(self, spec: Mapping[str, Any]) -> None:
        self.api.change("finetunejobs", NAMESPACE, self.key.name, {"spec": dict(spec)})

    def apply(self, spec: Mapping[str, Any], *, manager: str = "kubectl", force: bool = False) -> Answer:
        """Server-side apply of a manifest that says this and where model and data are, as kubectl, Argo CD and Flux send it."""
        written = {name: MINIMAL_SPEC[name] for name in ("model", "dataset", "resources")}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self.key.name}, "spec": {**written, **spec}}
        query = {"fieldManager": manager, **({"force": "true"} if force else {})}
        return self.api.send("PATCH", f"{JOBS_PATH}/{self.key.name}", manifest, content_type=APPLY_PATCH, **query)

    def scale(self, replicas: int) -> None:
        """Kubectl scale."""
        path, patch = f"{JOBS_PATH}/{self.key.name}/scale", {"spec": {"replicas": replicas}}
        answer = self.api.send("PATCH", path, patch, content_type=MERGE_PATCH, fieldManager="kubectl")
        assert answer.status == 200, answer.body

    def annotate(self, **annotations: str | None) -> None:
        self.api.change("finetunejobs", NAMESPACE, self.key.name, {"metadata": {"annotations": annotations}})

    # --- the cluster ---

    def step(self) -> None:
        """Garbage collector, Job controller and kubelet, until they have nothing to do."""
        for _ in range(50):
            before = self.fingerprint()
            self._collect_garbage()
            for job in list(self.api.find("jobs")):
                self._control(job)
            for pod in list(self.api.find("pods")):
                self._run_pod(pod)
            if self.fingerprint() == before:
                return
        raise AssertionError("the simulated controllers do not come to rest")

    def _collect_garbage(self) -> None:
        uids = {manifest["metadata"]["uid"] for manifest in self.api.objects.values()}
        for key, manifest in list(self.api.objects.items()):
            owners = manifest["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in uids for owner in owners) and "deletionTimestamp" not in manifest["metadata"]:
                self.api.delete(key)
        for key, manifest in list(self.api.objects.items()):
            finalizers = manifest["metadata"].get("finalizers") or ()
            if FOREGROUND in finalizers and "deletionTimestamp" in manifest["metadata"]:
                self._delete_foreground(key, manifest)

    def _delete_foreground(self, key: Key, manifest: Manifest) -> None:
        uid = manifest["metadata"]["uid"]
        dependents = [k for k, m in self.api.objects.items() if any(o["uid"] == uid for o in m["metadata"].get("ownerReferences") or ())]
        for dependent in dependents:
            if "deletionTimestamp" not in self.api.objects[dependent]["metadata"]:
                self.api.delete(dependent)
        if not dependents:
            remaining = [f for f in manifest["metadata"]["finalizers"] if f != FOREGROUND]
            self.api.change(*key, {"metadata": {"finalizers": remaining}})

    def _control(self, job: Manifest) -> None:
        """The Job controller: one pod per index, none replaced (backoffLimit 0), the first failure ends the rest."""
        metadata, spec = job["metadata"], job["spec"]
        conditions = {c["type"] for c in (job.get("status") or {}).get("conditions") or ()}
        if "deletionTimestamp" in metadata or conditions & {"Complete", "Failed"}:
            return
        pods = [pod for pod in self.api.find("pods") if pod["metadata"]["ownerReferences"][0]["uid"] == metadata["uid"]]
        status = job.get("status") or {}
        failed = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed"]
        started = status.get("startTime") is not None
        if not started and not spec.get("suspend"):
            for index in range(spec["completions"]):
                self._create_pod(job, index)
            self._job_status(job, startTime=self.clock.text(), active=spec["completions"])
        elif failed or (started and len(pods) < spec["completions"]):
            if "FailureTarget" not in conditions:
                self._job_condition(job, "FailureTarget", "BackoffLimitExceeded")
            for pod in pods:
                if pod["status"]["phase"] in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]:
                    self.api.delete(("pods", NAMESPACE, pod["metadata"]["name"]))
            if all(
                (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
                for pod in self.api.find("pods")
                if pod in pods or _owned(pod, metadata["uid"])
            ):
                self._job_condition(job, "Failed", "BackoffLimitExceeded")
        elif pods and all((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods):
            self._job_condition(job, "Complete", "CompletionsReached")

    def _create_pod(self, job: Manifest, index: int) -> None:
        name = job["metadata"]["name"]
        template = job["spec"]["template"]
        metadata = {
            "name": f"{name}-{index}",
            "namespace": NAMESPACE,
            "labels": dict(template["metadata"]["labels"]),
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": True}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": copy.deepcopy(template["spec"]),
            "status": {"phase": "Pending"},
        }
        self.api.add("pods", pod)

    def _run_pod(self, pod: Manifest) -> None:
        """Scheduler and kubelet."""
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        node = pod["spec"].get("nodeName")
        if status.get("phase") == "Pending" and node is None and "deletionTimestamp" not in pod["metadata"]:
            self._schedule(pod)
        elif node in self.dead_nodes:
            return
        elif "deletionTimestamp" in pod["metadata"]:
            if status.get("phase") == "Running":
                self._terminated(pod)
            else:
                self.api.remove(("pods", NAMESPACE, name))
        elif status.get("phase") == "Pending":
            self._start(pod)
        elif status.get("phase") == "Running" and pod["metadata"]["labels"][LABEL_COMPONENT] != "trainer":
            self._answer_verb(pod)

    def kill_node(self) -> None:
        """The node the pods are on stops answering; the node controller evicts what was on it. New pods go to another one."""
        node = f"node-{self._nodes}"
        self.dead_nodes.add(node)
        self.lost_nodes.add(node)
        self._nodes += 1
        for pod in self.api.find("pods"):
            if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]:
                disruption = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByTaintManager",
                    "lastTransitionTime": self.clock.text(),
                }
                ready = {"type": "Ready", "status": "False"}
                self._pod_status(pod, {"conditions": [disruption, ready, {"type": "PodScheduled", "status": "True"}]})
                self.api.delete(("pods", NAMESPACE, pod["metadata"]["name"]))

    def _schedule(self, pod: Manifest) -> None:
        if self.cordoned:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
            self._pod_status(pod, {"conditions": [condition]})
            return
        scheduled = {"type": "PodScheduled", "status": "True"}
        self.api.change(
            "pods", NAMESPACE, pod["metadata"]["name"], {"spec": {"nodeName": f"node-{self._nodes}"}, "status": {"conditions": [scheduled]}}
        )

    def _start(self, pod: Manifest) -> None:
        if self.waiting_reason is not None:
            waiting = {"waiting": {"reason": self.waiting_reason, "message": "cannot start"}}
            self._pod_status(pod, {"containerStatuses": [{"name": "trainer", "state": waiting}]})
            return
        running = {"running": {"startedAt": self.clock.text()}}
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
        self._pod_status(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [{"name": "trainer", "state": running}]})

    def _terminated(self, pod: Manifest) -> None:
        """A pod got SIGTERM: the simulated trainer saves and exits 75; its last words are gone with it."""
        workload = pod["metadata"]["ownerReferences"][0]["name"]
        trainer = self.trainers.get(workload)
        if (
            trainer is not None
            and trainer.stopped is None
            and trainer.step > 0
            and pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "0"
        ):
            self._save(trainer, "signal")
        self.api.remove(("pods", NAMESPACE, pod["metadata"]["name"]))

    def _answer_verb(self, pod: Manifest) -> None:
        verb = pod["metadata"]["labels"][LABEL_COMPONENT]
        newest = self.store.newest
        default = TerminationMessage(
            contract_version=CONTRACT_VERSION,
            run=int(pod["metadata"]["labels"][LABEL_RUN]),
            pod=0,
            exit_code=0,
            checkpoint=newest,
            final_uri=f"{self.output_uri}/final" if self.store.final else None,
        )
        answer = self.verb_exit.get(verb, default)
        self.end_pod(pod["metadata"]["name"], answer.exit_code, answer)

    def end_pod(self, name: str, code: int, answer: TerminationMessage | None = None, *, reason: str = "") -> None:
        """The container of a pod ends."""
        message = answer.to_json() if answer is not None else ""
        terminated = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "finishedAt": self.clock.text(),
        }
        state = {"name": "trainer", "state": {"terminated": terminated}}
        patch = {"status": {"phase": "Succeeded" if code == 0 else "Failed", "containerStatuses": [state]}}
        self.api.change("pods", NAMESPACE, name, patch)

    def fail_job(self, name: str, reason: str, message: str) -> None:
        """The Job controller ends a Job whose pods did not fail."""
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        self.api.change("jobs", NAMESPACE, name, {"status": {"conditions": [condition]}})
        for pod in self.api.find("pods"):
            if pod["metadata"]["ownerReferences"][0]["name"] == name:
                self.api.delete(("pods", NAMESPACE, pod["metadata"]["name"]))

    def _pod_status(self, pod: Manifest, status: Manifest) -> None:
        self.api.change("pods", NAMESPACE, pod["metadata"]["name"], {"status": status})

    def _job_status(self, job: Manifest, **status: Any) -> None:
        self.api.change("jobs", NAMESPACE, job["metadata"]["name"], {"status": status})

    def _job_condition(self, job: Manifest, kind: str, reason: str) -> None:
        old = (self.api.get("jobs", job["metadata"]["name"]) or job).get("status") or {}
        conditions = [*(old.get("conditions") or ()), {"type": kind, "status": "True", "reason": reason, "message": ""}]
        self._job_status(job, conditions=conditions)

    # --- the trainer ---

    @property
    def output_uri(self) -> str:
        return self.status.output_uri or ""

    def current(self) -> tuple[str, TrainerModel] | None:
        """Name and model of the trainer whose pods all run."""
        for job in self.jobs():
            pods = [pod for pod in self.pods() if _owned(pod, job["metadata"]["uid"])]
            running = [pod for pod in pods if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]]
            name = job["metadata"]["name"]
            if len(running) == job["spec"]["completions"]:
                if name not in self.trainers:
                    self.store.attempts += 1
                    newest = self.store.newest
                    self.trainers[name] = TrainerModel(self.store.attempts, newest.step if newest else 0, newest)
                return name, self.trainers[name]
        return None

    async def train(self, steps: int, *, save_every: int = 20) -> None:
        """Let the trainer do some steps (if one runs) and post; it obeys commands."""
        found = self.current()
        if found is None:
            return
        name, trainer = found
        if trainer.stopped is None:
            for _ in range(steps):
                if trainer.step >= TOTAL_STEPS:
                    break
                trainer.step += 1
                self.used_seconds[self.use] += 1
                if trainer.step % save_every == 0:
                    self._save(trainer, "steps")
        if trainer.step >= TOTAL_STEPS and not trainer.finished:
            trainer.finished = self.store.final = True
        self.post(name, trainer)
        self._obey(name, trainer)
        if trainer.finished:
            for pod in self.pods():
                if pod["metadata"]["ownerReferences"][0]["name"] == name and pod["status"]["phase"] == "Running":
                    self.end_pod(pod["metadata"]["name"], 0)

    def _obey(self, name: str, trainer: TrainerModel) -> None:
        known = read_known(self.manifest)
        for command in commands_of(known.pause, known.request, known.pause_policy, run_of(self.key.name, name)):
            if command.action in ("pause", "stop") and trainer.stopped is None and self.posts_arrive:
                self._save(trainer, "pause" if command.action == "pause" else "stop")
                trainer.stopped = Stopped(command_id=command.id, step=trainer.step, saved=True, checkpoint=self.store.newest)
                self.post(name, trainer)
            if command.action == "checkpoint" and command.id not in trainer.acknowledged and self.posts_arrive:
                self._save(trainer, "command")
                trainer.acknowledged.append(command.id)
                self.post(name, trainer)

    def _save(self, trainer: TrainerModel, trigger: Trigger) -> None:
        if (trainer.attempt, trainer.step) not in self.store.checkpoints:
            self.store.checkpoints.append((trainer.attempt, trainer.step))
        trainer.checkpoints.append((trainer.attempt, trainer.step, trigger))

    def post(self, name: str, trainer: TrainerModel) -> None:
        """What the progress endpoint does with a post, without the network."""
        if not self.posts_arrive:
            return
        reports = [
            CheckpointReport(
                attempt=attempt, step=step, uri=f"{self.output_uri}/{checkpoint_prefix(attempt, step)}", size_bytes=1000,
                created_at=format_time(self.clock.now()), trigger=trigger,
            )
            for attempt, step, trigger in trainer.checkpoints[-5:]
        ]  # fmt: skip
        finished = (
            Finished(step=trainer.step, final_uri=f"{self.output_uri}/final", source="last", early_stopped=trainer.early_stopped)
            if trainer.finished
            else None
        )
        post = FineTuneProgress(
            contract_version=CONTRACT_VERSION,
            run=int(name.rpartition("-r")[2]),
            attempt=trainer.attempt,
            phase="Finished" if trainer.finished else "Holding" if trainer.stopped else self.activity,
            step=trainer.step,
            total_steps=TOTAL_STEPS,
            loss=2.0 - trainer.step / TOTAL_STEPS,
            checkpoints=reports,
            checkpoints_saved=len({(attempt, step) for attempt, step, _ in trainer.checkpoints}),
            parent=trainer.parent,
            facts=self.facts,
            usage=UsageSeconds.model_validate(self.used_seconds),
            save_seconds=self.checkpoint_seconds[0] if self.checkpoint_seconds else None,
            upload_seconds=self.checkpoint_seconds[1] if self.checkpoint_seconds else None,
            stopped=trainer.stopped,
            finished=finished,
            acknowledged=trainer.acknowledged,
        )
        known = read_known(self.manifest)
        body = ProgressPost(trainer_status=TrainerStatus(last_updated_time=format_time(self.clock.now())), finetune=post)
        progress: StatusProgress = progress_of(body, known.merged, before=known.progress, run=known.run, now=format_time(self.clock.now()))
        self.api.change("finetunejobs", NAMESPACE, self.key.name, {"status": {"progress": patch_of(progress)}})


def failure(
    failure_class: FailureClass, code: int, *, run: int = 1, message: str = "it broke", checkpoint: CheckpointRef | None = None
) -> TerminationMessage:
    """A failed pod's last words."""
    return TerminationMessage(
        contract_version=CONTRACT_VERSION, run=run, pod=0, exit_code=code, failure_class=failure_class, message=message, failed_rank=0,
        log_lines="Traceback: it broke", checkpoint=checkpoint,
    )  # fmt: skip


def _owned(manifest: Manifest, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in manifest["metadata"].get("ownerReferences") or ())


__all__ = ["LABEL_JOB", "NAMESPACE", "SETTINGS", "FakeCluster", "failure", "job_manifest"]
