"""What the operator's page says of jobs: states and last numbers (T-08), histories, and nothing of a job that is gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import generate_latest

from finetune_operator.feed import JobFeed
from finetune_operator.job_metrics import JobCollector, JobHistory
from finetune_operator.metrics import OperatorMetrics
from tests.support.operator_cluster import job_manifest

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
RESOLVED = {"training.learningRate": {"value": "0.0002", "source": "preset"}, "adapter.type": {"value": "lora", "source": "default"}}


class Page:
    """The operator's metrics page over a feed of job events."""

    def __init__(self, *, leads: bool = True) -> None:
        self.now = START
        metrics = OperatorMetrics("1.2.3")
        self.registry = metrics.registry
        history = JobHistory(self.registry, is_leader=lambda: leads, now=lambda: self.now)
        self.feed = JobFeed(lambda _key, _delay: None, lambda _key: None, on_change=history.changed)
        self.registry.register(JobCollector(self.feed, is_leader=lambda: leads))

    def see(self, status: dict[str, Any], *, after: float = 0.0, spec: dict[str, Any] | None = None) -> None:
        self.now += timedelta(seconds=after)
        self.feed.job_event("MODIFIED", {**job("demo", spec), "status": status})

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def value(self, series: str) -> float | None:
        return next((float(line.rpartition(" ")[2]) for line in self.text().splitlines() if line.rpartition(" ")[0] == series), None)


def job(name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    manifest = job_manifest(name, spec)
    manifest["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": "1", "generation": 1, "creationTimestamp": "2026-11-21T07:59:00Z"}
    return manifest


def training(**changes: Any) -> dict[str, Any]:
    progress = {"run": 2, "step": 40, "totalSteps": 100, "percent": 40, "loss": 1.5, "etaSeconds": 60, "updatedAt": "2026-11-21T08:00:00Z"}
    attempt = {"run": 2, "attempt": 3, "reason": "Resumed", "startedAt": "2026-11-21T07:59:30Z"}
    status = {"phase": "Training", "reason": "Training", "run": 2, "attemptCount": 3, "progress": progress, "attempts": [attempt]}
    return {**status, "resolved": RESOLVED, "replicas": 1, "usage": {"productiveSeconds": 90.5, "lostSteps": 4}, **changes}


def ended(outcome: str, **changes: Any) -> dict[str, Any]:
    return training(attempts=[{**training()["attempts"][0], "endedAt": "2026-11-21T09:00:00Z", "outcome": outcome}], **changes)


JOB = 'finetune_job="demo",finetune_namespace="default"'


def test_a_job_s_last_numbers_outlive_its_pods() -> None:
    """T-08: the operator re-exports progress, usage and the configuration with what was resolved."""
    page = Page()
    page.see(training())
    for series, value in {
        f'finetune_job_phase{{{JOB},phase="Training",reason="Training"}}': 1,
        f"finetune_job_progress_ratio{{{JOB}}}": 0.4,
        f"finetune_job_loss{{{JOB}}}": 1.5,
        f"finetune_job_attempts{{{JOB}}}": 3,
        f"finetune_job_eta_seconds{{{JOB}}}": 60,
        f"finetune_job_pods{{{JOB}}}": 1,
        f"finetune_job_gpus{{{JOB}}}": 0,
        f"finetune_job_lost_steps_total{{{JOB}}}": 4,
        f'finetune_job_device_seconds_total{{device="cpu",{JOB},use="productive"}}': 90.5,
        f"finetune_job_created_timestamp_seconds{{{JOB}}}": START.timestamp() - 60,
        'finetune_jobs{phase="Training"}': 1,
        'finetune_jobs{phase="Failed"}': 0,
    }.items():
        assert page.value(series) == value, series
    (config,) = [line for line in page.text().splitlines() if line.startswith("finetune_job_config_info{")]
    for label in ('learning_rate="0.0002"', 'adapter="lora"', 'model="s3://models/tiny"', 'method=""', 'replicas="1"'):
        assert label in config
    assert "finetune_job_eval_loss{" not in page.text()


def test_a_resting_job_has_no_time_left() -> None:
    page = Page()
    page.see(ended("Paused", phase="Paused", reason="UserRequested", replicas=0))
    assert page.value(f"finetune_job_eta_seconds{{{JOB}}}") is None
    assert page.value(f"finetune_job_step{{{JOB}}}") == 40


def test_warning_conditions_are_series() -> None:
    """F-20, AB-05: what the trainer warns of can be alerted on; the fixed conditions are phases already."""
    page = Page()
    conditions = [
        {"type": "OverfittingSuspected", "status": "True"},
        {"type": "Ready", "status": "True"},
        {"type": "UploadFailing", "status": "False"},
    ]
    page.see(training(conditions=conditions))
    assert page.value(f'finetune_job_warning{{condition="OverfittingSuspected",{JOB}}}') == 1
    assert page.text().count("finetune_job_warning{") == 1


def test_gpus_are_those_of_the_pods_there_are() -> None:
    page = Page()
    page.see(training(replicas=2), spec={"resources": {"device": "gpu", "gpusPerReplica": 4}})
    assert page.value(f"finetune_job_gpus{{{JOB}}}") == 8


def test_time_of_gpus_and_time_of_ranks_on_cpu_are_told_apart() -> None:
    """GPU hours and costs count the first only."""
    page = Page()
    page.see(training(), spec={"resources": {"device": "gpu"}})
    assert page.value(f'finetune_job_device_seconds_total{{device="gpu",{JOB},use="productive"}}') == 90.5
    assert 'device="cpu"' not in page.text()


def test_the_cost_is_that_of_the_status() -> None:
    """A-09, L-02: in its currency; a job without a price has none, and one that is gone neither."""
    page = Page()
    page.see(training())
    assert "finetune_job_cost_total{" not in page.text()
    page.see(training(usage={"cost": "12.3400", "currency": "EUR", "hourlyRate": "2.5"}), spec={"resources": {"device": "gpu"}})
    assert page.value(f'finetune_job_cost_total{{currency="EUR",{JOB}}}') == 12.34
    page.feed.job_event("DELETED", job("demo"))
    assert "finetune_job_cost_total{" not in page.text()


def test_a_job_that_is_gone_leaves_no_series() -> None:
    page = Page()
    page.see(training())
    page.feed.job_event("DELETED", job("demo"))
    assert 'finetune_job="demo"' not in page.text()


def test_only_the_leader_tells_of_jobs() -> None:
    page = Page(leads=False)
    page.see(training(phase="Queued"))
    page.see(training())
    assert "finetune_job_config_info" not in page.text()
    assert page.value('finetune_job_transitions_total{phase="Training"}') == 0


def test_waits_are_measured_from_phase_to_phase() -> None:
    """Queue, start-up and pause are histograms over all jobs."""
    page = Page()
    page.see(training(phase="Starting"))
    page.see(training(phase="Queued"), after=10)
    page.see(training(phase="Queued"), after=20)
    page.see(training(), after=30)
    assert page.value("finetune_job_queue_duration_seconds_sum") == 50
    assert page.value("finetune_job_startup_duration_seconds_sum") == 90
    pause = {"commandId": "p1", "action": "pause", "requestedAt": "2026-11-21T08:01:00Z"}
    page.see(ended("Paused", phase="Paused", pause=pause), after=9)
    assert page.value("finetune_job_pause_duration_seconds_sum") == 9
    assert page.value('finetune_attempts_ended_total{outcome="Paused"}') == 1
    assert page.value('finetune_job_transitions_total{phase="Training"}') == 1


def test_an_ended_attempt_is_counted_once_by_its_outcome() -> None:
    page = Page()
    page.see(training())
    for _ in range(3):
        page.see(ended("NodeLost", phase="Starting"))
    assert page.value('finetune_attempts_ended_total{outcome="NodeLost"}') == 1


def test_what_was_so_before_the_first_look_is_not_counted() -> None:
    """A new leader lists all jobs; their past belongs to the leader before it."""
    page = Page()
    page.see(ended("CudaOutOfMemory", phase="Failed", reason="CudaOutOfMemory"))
    assert page.value('finetune_attempts_ended_total{outcome="CudaOutOfMemory"}') == 0
    assert page.value('finetune_job_transitions_total{phase="Failed"}') == 0
