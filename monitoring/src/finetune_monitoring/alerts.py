"""Alerts: each with a severity, a sentence that names what is wrong, and a runbook (docs/runbooks)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from finetune_api.constants import BALANCE_EXHAUSTED, LIMIT_REACHED
from finetune_api.contract import metrics as m
from finetune_api.contract.failures import FailureClass
from finetune_api.models.status import Phase
from finetune_monitoring.queries import BY_JOB, by_job, least, select

RUNBOOKS: Final = "https://finetune.dev/docs/runbooks"
"""Where docs/runbooks is published; the chart replaces it by ``metrics.prometheusRule.runbookBaseUrl``."""
REPLICAS: Final = "namespace, job"
"""Labels of the target: one installation of the operator."""
JOB: Final = "{{ $labels.finetune_namespace }}/{{ $labels.finetune_job }}"
RUNNING: Final = f"{Phase.TRAINING}|{Phase.EVALUATING}"
SHORT_OF_CREDIT: Final = f"{Phase.PAUSED}|{Phase.AWAITING_BALANCE}"
WAITING: Final = f"{Phase.QUEUED}|{Phase.STARTING}|{Phase.RESUMING}"


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"
    """Now: nothing works for anybody."""
    WARNING = "warning"
    """Today: a job needs its owner."""
    INFO = "info"
    """When there is time: worth knowing."""


class Alert(NamedTuple):
    """One rule."""

    name: str
    expr: str
    hold: str
    """How long it must be so before the alert fires."""
    severity: Severity
    summary: str
    description: str

    @property
    def document(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity.value},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


def _ratio(metric: m.Metric, result: str, over: str) -> str:
    failed = f"sum by ({REPLICAS}) (rate({select(metric, result=result)}[{over}]))"
    return f"{failed} / sum by ({REPLICAS}) (rate({metric}[{over}]))"


def operator_alerts() -> tuple[Alert, ...]:
    """The operator does not work as it should."""
    return (
        Alert(
            "FineTuneOperatorDown", f"absent({m.OPERATOR_INFO})", "5m", Severity.CRITICAL,
            "No fine-tuning operator answers",
            "Prometheus has had no metrics of any operator replica for 5 minutes. Trainings that run go on; "
            "nothing is started, paused or resumed.",
        ),
        Alert(
            "FineTuneOperatorNoLeader", f"max by ({REPLICAS}) ({m.LEADER}) == 0", "2m", Severity.CRITICAL,
            "No replica of the fine-tuning operator leads",
            "Replicas of {{ $labels.job }} in {{ $labels.namespace }} answer, but none has held the Lease for 2 minutes.",
        ),
        Alert(
            "FineTuneReconcileErrors", f"{_ratio(m.RECONCILES, 'error', '10m')} > 0.1", "10m", Severity.WARNING,
            "The fine-tuning operator fails to look after jobs",
            "{{ $value | humanizePercentage }} of the looks at jobs have ended in an error for 10 minutes.",
        ),
        Alert(
            "FineTuneOperatorBehind", f"max by ({REPLICAS}) ({m.QUEUE_OLDEST}) > 60", "5m", Severity.WARNING,
            "The fine-tuning operator is behind",
            "A job has been waiting to be looked at for {{ $value | humanizeDuration }}.",
        ),
    )  # fmt: skip


def _stalled() -> str:
    """The operator hears nothing, or the trainer itself says that it stands still (``retry.stallSeconds``)."""
    silent = f"(time() - {by_job(m.JOB_LAST_PROGRESS, '')} > 900)"
    running = by_job(m.JOB_PHASE, "", phase=RUNNING)
    still = f"(time() - {least(m.LAST_HEADWAY)}) and on ({BY_JOB}) {by_job(m.STALLED, '')} == 1"
    return f"({silent} and on ({BY_JOB}) {running}) or ({still})"


def _diverging() -> str:
    """Ten-minute means, since a single step says little; losses that may be zero or negative (DPO, GRPO) have no such ratio."""
    mean = f"max by ({BY_JOB}) (avg_over_time({m.LOSS}[10m]))"
    best = f"max by ({BY_JOB}) (min_over_time(avg_over_time({m.LOSS}[10m])[6h:5m]) > 0.1)"
    return f"{mean} > 1.5 * {best}"


def _checkpoint_age() -> str:
    newest = by_job(m.JOB_CHECKPOINT_TIME, "")
    started = by_job(m.JOB_STARTED, "")
    last = f"(({newest} > {started}) or {started})"
    return f"(time() - {last} > 7200) and on ({BY_JOB}) {by_job(m.JOB_PHASE, '', phase=RUNNING)}"


def job_alerts() -> tuple[Alert, ...]:
    """A job needs somebody."""
    diverged = FailureClass.LOSS_DIVERGED.value
    failed = select(m.JOB_PHASE, phase=Phase.FAILED.value)
    return (
        Alert(
            "FineTuneJobFailed", f"max by ({BY_JOB}, reason) ({failed}) == 1", "0m", Severity.WARNING,
            f"Fine-tuning job {JOB} failed",
            f"{JOB} failed: {{{{ $labels.reason }}}}. Its status has the message, the last log lines and what to do.",
        ),
        Alert(
            "FineTuneJobStalled", _stalled(), "1m", Severity.WARNING,
            f"Fine-tuning job {JOB} makes no progress",
            f"{JOB} is training, but nothing new has been heard of it for {{{{ $value | humanizeDuration }}}}.",
        ),
        Alert(
            "FineTuneLossDiverging", _diverging(), "10m", Severity.WARNING,
            f"The loss of fine-tuning job {JOB} rises",
            f"The training loss of {JOB} is {{{{ $value | humanize }}}}, "
            "more than one and a half times its best ten minutes of the last 6 hours.",
        ),
        Alert(
            "FineTuneLossNotANumber", f"{by_job(m.JOB_PHASE, '', phase=Phase.FAILED.value, reason=diverged)} == 1", "0m", Severity.WARNING,
            f"Fine-tuning job {JOB} diverged",
            f"{JOB} was ended because its loss became NaN or infinite, or rose far above its best. Checkpoints from before that are kept.",
        ),
        Alert(
            "FineTuneOverfitting", f"{by_job(m.JOB_WARNING, '', condition=OVERFITTING)} == 1", "0m", Severity.INFO,
            f"Fine-tuning job {JOB} seems to overfit",
            f"The training loss of {JOB} falls while its evaluation loss rises.",
        ),
        Alert(
            "FineTuneCheckpointTooOld", _checkpoint_age(), "5m", Severity.WARNING,
            f"Fine-tuning job {JOB} has no recent checkpoint",
            f"{JOB} is training, and the newest complete checkpoint of its run is {{{{ $value | humanizeDuration }}}} old: "
            "that much work is at risk.",
        ),
        Alert(
            "FineTuneUploadFailing", f"max by ({BY_JOB}) (increase({m.UPLOAD_ERRORS}[15m])) > 3", "5m", Severity.WARNING,
            f"Checkpoints of fine-tuning job {JOB} cannot be uploaded",
            f"Uploads of {JOB} failed {{{{ $value | humanize }}}} times within 15 minutes. Training goes on; a pause waits for the store.",
        ),
        Alert(
            "FineTunePausedByLimit", f"{by_job(m.JOB_PHASE, '', phase=Phase.PAUSED.value, reason=LIMIT_REACHED)} == 1",
            "0m", Severity.WARNING,
            f"Fine-tuning job {JOB} was paused by its limits",
            f"{JOB} has used up its spec.limits and is paused. It keeps its checkpoint and goes on when they are raised and it is resumed.",
        ),
        Alert(
            "FineTuneBudgetExhausted",
            f"{by_job(m.JOB_PHASE, '', phase=SHORT_OF_CREDIT, reason=f'{BALANCE_EXHAUSTED}|BalanceTooLow|QuotaTooLow')} == 1",
            "5m", Severity.WARNING,
            f"Fine-tuning job {JOB} waits for credit",
            f"Its namespace's Budget has less left than {JOB} may cost or write. It holds no GPU and goes on after kubectl finetune topup.",
        ),
        Alert(
            "FineTuneUnschedulable", f"{by_job(m.JOB_PHASE, '', phase=WAITING)} == 1", "30m", Severity.WARNING,
            f"Fine-tuning job {JOB} does not get its pods",
            f"{JOB} has been waiting for pods or a queue for 30 minutes. Its status says what is missing.",
        ),
    )  # fmt: skip


OVERFITTING: Final = "OverfittingSuspected"
"""Warning condition of the trainer (F-20)."""


def rule_groups() -> dict[str, Any]:
    """The rule file."""
    groups: Mapping[str, tuple[Alert, ...]] = {"finetune-operator": operator_alerts(), "finetune-jobs": job_alerts()}
    return {"groups": [{"name": name, "rules": [alert.document for alert in alerts]} for name, alerts in groups.items()]}
