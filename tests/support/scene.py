"""Six jobs over three hours, as operator and trainers would show them: real collectors, driven by recorded runs on a clock of its own.

The recordings (tests/data/runs) are metrics files of real trainings of the tiny model on CPU; their seconds are stretched
as much as each part of a job's life lasts. What a CPU does not have (GPU memory, MFU) is made up for the one job that asks for GPUs.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from finetune_api.contract import metrics as names
from finetune_api.contract.run_config import JobIdentity
from finetune_api.contract.store import UsageSeconds
from finetune_operator.budget_metrics import BudgetCollector
from finetune_operator.feed import JobFeed
from finetune_operator.feed_budgets import BudgetFeed
from finetune_operator.job_metrics import JobCollector, JobHistory
from finetune_operator.metrics import OperatorMetrics
from finetune_trainer.protocol import StepReport
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.metrics import BoardCollector
from tests.support.manifests import ROOT
from tests.support.operator_cluster import job_manifest

DURATION = 3 * 3600.0
SCENE_AFTER = 1.15
"""What is still training at the end would end this much later than the scene, as a share of it."""
SAVE_EVERY = 10
RECORDINGS = ROOT / "tests" / "data" / "runs"


@dataclass(frozen=True)
class Row:
    """An optimizer step of a recorded run."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    seconds: float
    eval_loss: float | None = None


@cache
def recording(name: str) -> tuple[Row, ...]:
    """Rows of a recorded run."""
    lines = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Row(**json.loads(line)) for line in lines)


@dataclass(frozen=True)
class Part:
    """A stretch of a job's life: from ``start`` (seconds of the scene) in one phase. Training goes through the rows from ``first`` on."""

    start: float
    phase: str
    reason: str = ""
    attempt: int = 0
    first: int = 0
    """Index of the first row that is trained."""
    rows: int = 0
    """Rows in all; the rest of the time nothing new happens."""
    outcome: str = ""
    """Of the attempt, when this part ends it."""


@dataclass(frozen=True)
class Moment:
    """What is so at one moment."""

    part: Part
    index: int
    """Index of the newest row; -1 before the first."""
    rows: Sequence[Row]
    lost_steps: int
    usage: UsageSeconds
    """Wall time, as trainers tell it; the operator multiplies it by the devices."""
    run_started: float
    seconds_left: float
    """Of the present part's training."""

    @property
    def row(self) -> Row | None:
        """The newest step."""
        return self.rows[self.index] if self.index >= 0 else None

    @property
    def checkpoint(self) -> Row | None:
        """The step of the newest checkpoint."""
        saved = (self.index + 1) // SAVE_EVERY * SAVE_EVERY - 1
        return self.rows[saved] if saved >= 0 else None


@dataclass(frozen=True)
class Actor:
    """One job."""

    namespace: str
    name: str
    recorded: str
    parts: tuple[Part, ...]
    spec: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[tuple[float, str], ...] = ()
    """(from when, condition)."""
    pods: int = 1
    gpus: int = 0
    """Per pod."""
    rate: float | None = None
    """Price of a GPU for an hour, where its GpuType has one."""

    @property
    def devices(self) -> int:
        """GPUs of all pods; ranks on CPU."""
        return self.pods * max(1, self.gpus)

    def at(self, t: float) -> Moment | None:
        """The job at a time; None before it is created."""
        if t < self.parts[0].start:
            return None
        rows = recording(self.recorded)
        index, lost, seen, run_started, left = -1, 0, 0, 0.0, 0.0
        spent = dict.fromkeys(UsageSeconds.model_fields, 0.0)
        current = self.parts[0]
        for part, end in zip(self.parts, (*(part.start for part in self.parts[1:]), DURATION * SCENE_AFTER), strict=True):
            if part.start > t:
                break
            current = part
            elapsed = min(end, t) - part.start
            if part.phase in ("Starting", "Resuming"):
                run_started = part.start
                spent["starting"] += elapsed * 0.5
            if part.rows:
                if part.first <= index:
                    lost += index + 1 - part.first
                ends = self._ends(rows, part, end - part.start)
                index = part.first + bisect_right(ends, elapsed) - 1
                again = max(0, min(seen - part.first, len(ends)))
                replayed = min(elapsed, ends[again - 1]) if again else 0.0
                seen, left = max(seen, index + 1), end - part.start - elapsed
                spent["checkpointing"] += elapsed * 0.02
                spent["evaluating"] += elapsed * 0.05
                spent["replayed"] += replayed * 0.93
                spent["productive"] += (elapsed - replayed) * 0.93
        return Moment(current, index, rows, lost, UsageSeconds(**spent), run_started, left)

    def _ends(self, rows: Sequence[Row], part: Part, seconds: float) -> list[float]:
        """When each row of a part ends, in seconds from its beginning: the recorded durations, stretched to nearly fill it."""
        ends = list(accumulate(row.seconds for row in rows[part.first : part.first + part.rows]))
        return [moment * 0.98 * seconds / ends[-1] for moment in ends]


def moment_text(epoch: float, t: float) -> str:
    """A time of the scene in RFC 3339."""
    return datetime.fromtimestamp(epoch + t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def method_numbers(method: str, row: Row) -> dict[str, float] | None:
    """What a trainer of the method shows beside its loss; the lower the loss, the better."""
    learnt = 1 / (1 + row.loss)
    if method == "grpo":
        return {"reward": learnt, "reward_std": 0.3 * (1 - learnt), "kl": 0.01 * row.step * learnt}
    return {"rewards/accuracies": 0.5 + 0.5 * learnt} if method == "dpo" else None


class Scene:
    """All jobs, the operator's page and the trainers' pages, at one moment after another."""

    def __init__(self, actors: Sequence[Actor], epoch: float) -> None:
        """``epoch``: Unix seconds of the scene's beginning."""
        self.actors, self.epoch, self.t = actors, epoch, 0.0
        self._operator = OperatorMetrics("0.1.0")
        registry = self._operator.registry
        history = JobHistory(registry, is_leader=lambda: True, now=self._now)
        self._feed = JobFeed(lambda _key, _delay: None, lambda _key: None, on_change=history.changed)
        registry.register(JobCollector(self._feed, is_leader=lambda: True))
        self._budgets = BudgetFeed(lambda _key, _delay: None, lambda _key: None, waiting=lambda _namespace: ())
        registry.register(BudgetCollector(self._budgets, is_leader=lambda: True))
        self._gauges = {names.LEADER: 1.0, names.QUEUE_DEPTH: 0.0, names.QUEUE_OLDEST: 0.0, names.PROGRESS_PENDING: 0.0}
        self._gauges |= {names.PROGRESS_OLDEST: 0.0, names.JOBS_KNOWN: 0.0}
        for metric in self._gauges:
            self._operator.watch(metric, partial(self._gauges.__getitem__, metric))
        self._seen: dict[str, dict[str, Any]] = {}
        self._boards: dict[tuple[str, int], tuple[Board, CollectorRegistry]] = {}

    def advance(self, t: float) -> None:
        """Go to a later moment."""
        step, self.t = t - self.t, t
        training = 0
        for actor in self.actors:
            moment = actor.at(t)
            if moment is None:
                continue
            manifest = self._manifest(actor, moment)
            if self._seen.get(actor.name) != manifest:
                self._seen[actor.name] = manifest
                self._feed.job_event("MODIFIED", manifest)
                self._reconciled()
            if self._has_pods(moment.part):
                training += actor.pods
                self._train(actor, moment)
        for _ in range(max(1, round(training * step / 60))):
            self._operator.on_post(200, 0.004)
        used = t / 600
        status = {"balance": f"{500 - used:.4f}", "reserved": f"{used / 10:.4f}", "settled": f"{used:.4f}"}
        metadata = {"namespace": "team-b", "name": "default", "uid": "budget"}
        self._budgets.budget_event(
            "MODIFIED", {"metadata": metadata, "spec": {"currency": "USD", "checkpointQuota": 200}, "status": status}
        )
        self._gauges[names.JOBS_KNOWN] = len(self._feed)
        self._gauges[names.QUEUE_DEPTH] = float(int(t / 600) % 3)
        self._gauges[names.QUEUE_OLDEST] = 0.2 * self._gauges[names.QUEUE_DEPTH]
        self._gauges[names.PROGRESS_PENDING] = float(training % 3)
        self._gauges[names.PROGRESS_OLDEST] = 2.0 * (training % 3)

    def pages(self) -> Iterator[tuple[str, dict[str, str], bytes]]:
        """Each metrics page there is now: scrape job, labels of its target, text."""
        yield "finetune-operator", {"namespace": "finetune-system"}, generate_latest(self._operator.registry)
        for actor in self.actors:
            moment = actor.at(self.t)
            if moment is None or not self._has_pods(moment.part):
                continue
            for pod in range(actor.pods):
                _, registry = self._board(actor, pod)
                labels = {"namespace": actor.namespace, "pod": f"{actor.name}-r{moment.part.attempt}-{pod}"}
                yield f"{actor.name}-{pod}", labels, generate_latest(registry)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.epoch + self.t, UTC)

    def _has_pods(self, part: Part) -> bool:
        return part.rows > 0 or part.phase == "Pausing"

    def _reconciled(self) -> None:
        self._operator.on_result(None, "ok", 0.03)
        if len(self._seen) % 3 == 0:
            self._operator.on_result(None, "again", 0.01)
            self._operator.on_notification("sent")
        self._operator.events.labels("finetunejobs", "MODIFIED").inc()
        self._operator.events.labels("pods", "MODIFIED").inc()
        for verb, resource, code in (
            ("GET", "finetunejobs", 200),
            ("LIST", "pods", 200),
            ("PATCH", "finetunejobs", 200),
            ("GET", "jobs", 404),
        ):
            self._operator.on_request(verb, resource, code)

    def _board(self, actor: Actor, pod: int) -> tuple[Board, CollectorRegistry]:
        key = (actor.name, pod)
        if key not in self._boards:
            board, registry = Board(run=1), CollectorRegistry()
            registry.register(BoardCollector(board, JobIdentity(name=actor.name, namespace=actor.namespace, uid=actor.name)))
            self._boards[key] = board, registry
        return self._boards[key]

    def _train(self, actor: Actor, moment: Moment) -> None:
        for pod in range(actor.pods):
            board, _ = self._board(actor, pod)
            board.update(attempt=moment.part.attempt, run=moment.part.attempt)
            board.measure(names.STALLED, 0.0)
            board.measure(names.LAST_HEADWAY, self.epoch + self.t - 1)
            if pod == 0 and moment.row is not None:
                self._report(board, actor, moment, moment.row)

    def _report(self, board: Board, actor: Actor, moment: Moment, row: Row) -> None:
        speed = row.tokens / row.seconds
        board.step(
            StepReport(
                step=row.step, total_steps=len(moment.rows), epoch=row.epoch, loss=row.loss, grad_norm=row.grad_norm,
                learning_rate=row.learning_rate, tokens_per_second=speed, step_seconds=row.seconds,
                tokens_seen=sum(r.tokens for r in moment.rows[: moment.index + 1]),
                gpu_memory_bytes=int(61e9 + row.step * 1e7) if actor.gpus else None,
                mfu=0.4 + 0.02 * (row.step % 3) if actor.gpus else None,
                metrics=method_numbers(actor.spec.get("method", "sft"), row),
            )
        )  # fmt: skip
        evaluated = [r.eval_loss for r in moment.rows[: moment.index + 1] if r.eval_loss is not None]
        board.update(eval_loss=evaluated[-1] if evaluated else None, usage=moment.usage)
        if moment.checkpoint is not None:
            saves = moment.checkpoint.step / SAVE_EVERY
            for metric, value in (
                (names.CHECKPOINT_SAVE_DURATION, 0.3 + moment.checkpoint.seconds / 10),
                (names.CHECKPOINT_UPLOAD_DURATION, 2.5 + moment.checkpoint.seconds),
                (names.CHECKPOINT_BYTES, 48e6),
                (names.CHECKPOINT_LAST_STEP, moment.checkpoint.step),
                (names.CHECKPOINT_STALL, 0.4 * saves),
                (names.UPLOAD_ERRORS, 2.0 if saves > 3 else 0.0),
            ):
                board.measure(metric, value)
            board.observe(names.CHECKPOINT_SAVE_SECONDS, 0.3 + moment.checkpoint.seconds / 10)
            board.observe(names.CHECKPOINT_UPLOAD_SECONDS, 2.5 + moment.checkpoint.seconds)

    def _manifest(self, actor: Actor, moment: Moment) -> dict[str, Any]:
        """The FineTuneJob as the API server would have it."""
        manifest = job_manifest(actor.name, actor.spec)
        created = moment_text(self.epoch, actor.parts[0].start)
        manifest["metadata"] |= {"namespace": actor.namespace, "uid": actor.name, "generation": 1, "creationTimestamp": created}
        return {**manifest, "status": self._status(actor, moment)}

    def _status(self, actor: Actor, moment: Moment) -> dict[str, Any]:
        part, row = moment.part, moment.row
        has_pods = self._has_pods(part)
        status: dict[str, Any] = {
            "phase": part.phase,
            "reason": part.reason or part.phase,
            "run": part.attempt,
            "attemptCount": part.attempt,
            "replicas": actor.pods if has_pods else 0,
            "resolved": RESOLVED,
            "usage": {f"{use}Seconds": seconds * actor.devices for use, seconds in moment.usage.model_dump().items()}
            | {"lostSteps": moment.lost_steps}
            | cost(actor, moment),
            "conditions": [{"type": kind, "status": "True"} for since, kind in actor.warnings if self.t >= since],
            "attempts": [],
        }
        if part.attempt:
            attempt = {"run": part.attempt, "attempt": part.attempt, "reason": "Created"}
            attempt |= {"startedAt": moment_text(self.epoch, moment.run_started)}
            status["attempts"] = [attempt | ({"outcome": part.outcome} if part.outcome else {})]
        if part.phase == "Paused":
            requested = moment_text(self.epoch, part.start - 60)
            status["pause"] = {"commandId": "pause-1", "action": "pause", "requestedAt": requested, "saved": True}
        if part.phase in ("Succeeded", "Failed"):
            status["finishedAt"] = moment_text(self.epoch, part.start)
        if row is not None:
            total = len(moment.rows)
            status["progress"] = {
                "run": part.attempt, "attempt": part.attempt, "phase": "Training", "step": row.step, "totalSteps": total,
                "percent": 100 * row.step // total, "epoch": row.epoch, "loss": row.loss, "tokensPerSecond": row.tokens / row.seconds,
                "evalLoss": next((r.eval_loss for r in reversed(moment.rows[: moment.index + 1]) if r.eval_loss is not None), None),
                "etaSeconds": round(moment.seconds_left),
                "updatedAt": moment_text(self.epoch, self.t if has_pods else part.start),
            }  # fmt: skip
        if moment.checkpoint is not None:
            saved = {"step": moment.checkpoint.step, "attempt": 1, "uri": "s3://finetune/x", "trigger": "steps"}
            latest = saved | {"createdAt": moment_text(self.epoch, (self.t if has_pods else part.start) // 300 * 300)}
            status["checkpoints"] = {"latest": latest, "recent": []}
        return status


def cost(actor: Actor, moment: Moment) -> dict[str, Any]:
    """What the job's GPUs have cost, as its status says."""
    if actor.rate is None:
        return {}
    seconds = sum(moment.usage.model_dump().values()) * actor.devices
    return {"cost": f"{seconds * actor.rate / 3600:.4f}", "currency": "USD", "hourlyRate": f"{actor.rate:g}"}


RESOLVED = {
    path: {"value": value, "source": "default"}
    for path, value in {
        "method": "sft", "adapter.type": "lora", "adapter.rank": "8", "training.epochs": "3", "training.maxSteps": "-1",
        "training.gradAccumSteps": "4", "training.maxSeqLength": "512", "training.optimizer": "adamw_torch", "distributed.strategy": "auto",
        "training.seed": "42", "training.batchSize": "2",
    }.items()
}  # fmt: skip
HOUR = 3600.0
ALL_ROWS = 10_000


def cast() -> tuple[Actor, ...]:
    """Running, queued, paused and resumed, paused by a limit, failed, restarted after a lost node, finished."""
    model, dataset = {"uri": "s3://models/tiny"}, {"uri": "s3://finetune/kubernetes-sft.jsonl"}

    def spec(rate: float, **more: Any) -> dict[str, Any]:
        return {"model": model, "dataset": dataset, "training": {"learningRate": rate}, **more}

    gpu = {"resources": {"device": "gpu", "gpusPerReplica": 2}, "replicas": 2}
    return (
        Actor("team-a", "chat-lora", "steady", (
            Part(30, "Validating"), Part(60, "Queued"), Part(420, "Starting", "AwaitingPods", 1),
            Part(480, "Training", "Training", 1, 0, ALL_ROWS),
            Part(2.4 * HOUR, "Exporting", "Exporting", 1), Part(2.42 * HOUR, "Succeeded", "Finished", 1, outcome="Succeeded"),
        ), spec(2e-4)),
        Actor("team-a", "chat-lora-hot", "hot", (
            Part(120, "Starting", "AwaitingPods", 1), Part(200, "Training", "Training", 1, 0, ALL_ROWS),
            Part(1.5 * HOUR, "Failed", "LossDiverged", 1, outcome="LossDiverged"),
        ), spec(2e-2), warnings=((0.8 * HOUR, "OverfittingSuspected"),)),
        Actor("team-b", "support-bot", "steady", (
            Part(300, "Starting", "AwaitingPods", 1), Part(360, "Training", "Training", 1, 0, 60),
            Part(1.1 * HOUR, "Pausing", "AwaitingCheckpoint", 1), Part(1.1 * HOUR + 60, "Paused", "UserRequested", 1, outcome="Paused"),
            Part(1.7 * HOUR, "Resuming", "AwaitingPods", 2), Part(1.72 * HOUR, "Training", "Training", 2, 60, ALL_ROWS),
        ), spec(1e-4, method="grpo")),
        Actor("team-b", "big-sft", "big", (
            Part(0, "Validating"), Part(30, "Queued"), Part(900, "Starting", "AwaitingPods", 1),
            Part(1000, "Training", "Training", 1, 0, 45),
            Part(1.4 * HOUR, "Starting", "BackOff", 1, outcome="NodeLost"), Part(1.41 * HOUR, "Starting", "AwaitingPods", 2),
            Part(1.43 * HOUR, "Training", "Training", 2, 30, ALL_ROWS),
        ), spec(5e-5, **gpu), pods=2, gpus=2, rate=3.0),
        Actor("team-b", "capped", "steady", (
            Part(600, "Starting", "AwaitingPods", 1), Part(640, "Training", "Training", 1, 0, 30),
            Part(1.0 * HOUR, "Pausing", "AwaitingCheckpoint", 1), Part(1.0 * HOUR + 45, "Paused", "LimitReached", 1, outcome="Paused"),
        ), spec(2e-4, method="dpo")),
        Actor("team-b", "next-in-line", "steady", (
            Part(2.49 * HOUR, "Validating"), Part(2.5 * HOUR, "Queued"),
        ), spec(2e-4, **gpu), pods=2, gpus=2),
    )  # fmt: skip
