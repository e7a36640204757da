"""All jobs: what they are doing, what they wait for, why they fail, where the GPU hours go."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from finetune_api.constants import BALANCE_EXHAUSTED, LIMIT_REACHED
from finetune_api.contract import metrics as m
from finetune_api.models.status import Phase
from finetune_monitoring import panels as p
from finetune_monitoring.dashboards.frame import PRICE, frame, namespace, price, row
from finetune_monitoring.panels import Box, Query, Text
from finetune_monitoring.queries import IN_NAMESPACES, age, by_job, increase, phase_code, quantile, select, total
from finetune_monitoring.variables import datasource

SMALL: Final = Box(4, 4)
SMALLER: Final = Box(3, 4)
THIRD: Final = Box(8)
HALF: Final = Box(12)
AWAITING: Final = f"{Phase.AWAITING_APPROVAL}|{Phase.AWAITING_BALANCE}"
WAITING: Final = f"{Phase.PENDING}|{Phase.VALIDATING}|{AWAITING}|{Phase.QUEUED}|{Phase.STARTING}|{Phase.RESUMING}"
RUNNING: Final = f"{Phase.TRAINING}|{Phase.EVALUATING}|{Phase.EXPORTING}"
USED: Final = increase(m.JOB_USAGE, IN_NAMESPACES, device="gpu")
"""GPU seconds; the time of jobs on CPU is not among them."""

USED_BY_JOB: Final = increase(m.JOB_USAGE, IN_NAMESPACES, by=m.LABELS, device="gpu")
COST: Final = increase(m.JOB_COST, IN_NAMESPACES, by=m.LABELS)


def build() -> Dashboard:
    """The dashboard."""
    dashboard = frame("finetune-fleet", "FineTune / Fleet", "All fine-tuning jobs", since="24h", refresh="1m")
    dashboard = dashboard.with_variable(datasource()).with_variable(namespace(many=True)).with_variable(price())
    for add in (now, waits, gpus, budgets, jobs):
        dashboard = add(dashboard)
    return dashboard


def count(phases: str, **reason: str) -> Query:
    """Jobs that are in one of these phases now; 0 when there is none."""
    return Query(f"count({by_job(m.JOB_PHASE, IN_NAMESPACES, phase=phases, **reason)}) or vector(0)")


def now(dashboard: Dashboard) -> Dashboard:
    """Jobs by phase."""
    per_phase = f"count by (phase) ({by_job(m.JOB_PHASE, IN_NAMESPACES, 'phase')})"
    ended = increase(m.ATTEMPTS_ENDED, by=("outcome",), over="$__rate_interval")
    return row(
        dashboard,
        "Jobs",
        p.number(Text("Running", "Training, evaluating or exporting"), SMALLER, "none", count(RUNNING)),
        p.number(Text("Waiting", "For a check, approval, credit, a queue or pods"), SMALLER, "none", count(WAITING)),
        p.number(Text("Paused", "By their users or by a limit"), SMALLER, "none", count(f"{Phase.PAUSED}|{Phase.STOPPED}")),
        p.number(
            Text("At their limits", "Paused because spec.limits or the Budget are used up"),
            SMALLER,
            "none",
            count(Phase.PAUSED, reason=f"{LIMIT_REACHED}|{BALANCE_EXHAUSTED}"),
        ),
        p.alarm(Text("Failed", "Need someone"), SMALL, "none", count(Phase.FAILED), orange=1, red=5),
        p.number(
            Text("GPUs in use", "Of the trainer pods that exist now"), SMALL, "none", Query(f"sum({by_job(m.JOB_GPUS, IN_NAMESPACES)})")
        ),
        p.number(
            Text("Warnings", "Warning conditions that hold"),
            SMALL,
            "none",
            Query(f"count({select(m.JOB_WARNING, IN_NAMESPACES)}) or vector(0)"),
        ),
        p.by_phase(Text("Jobs by phase", "Over time"), THIRD, Query(per_phase, "{{phase}}")),
        p.series(
            Text("Attempts that ended", "In all namespaces, by outcome: a failure class, or how the job was told to end"),
            THIRD,
            "short",
            # Every outcome has a series; shown are those of the time before.
            Query(f"{ended} and on (outcome) {increase(m.ATTEMPTS_ENDED, by=('outcome',))} > 0", "{{outcome}}"),
            stacked=True,
        ),
        p.bars(
            Text("Failed jobs by class", "Jobs that are Failed now, by the class of the failure"),
            THIRD,
            "none",
            Query(f"count by (reason) ({by_job(m.JOB_PHASE, IN_NAMESPACES, 'reason', phase=Phase.FAILED)})", "{{reason}}"),
        ),
    )


def waits(dashboard: Dashboard) -> Dashboard:
    """How long jobs wait."""
    panels = []
    for title, text, metric in (
        ("Time in the queue", "In phase Queued", m.QUEUE_DURATION),
        ("Start-up", "From asking for pods to training", m.STARTUP_DURATION),
        ("Pause", "From the request to all pods gone", m.PAUSE_DURATION),
    ):
        queries = (Query(quantile(share, metric, over="$__range"), f"p{share * 100:g}") for share in (0.5, 0.95))
        panels.append(p.series(Text(title, f"{text}; quantiles over the time shown"), THIRD, "s", *queries))
    return row(dashboard, "Waits", *panels)


def gpus(dashboard: Dashboard) -> Dashboard:
    """Where the GPU hours go."""
    productive = increase(m.JOB_USAGE, IN_NAMESPACES, device="gpu", use="productive")
    return row(
        dashboard,
        "GPU time",
        p.number(Text("GPU hours", "Used within the time shown"), SMALL, "none", Query(f"({USED} or vector(0)) / 3600"), decimals=1),
        p.number(
            Text("Cost", "Of the GPU time within the time shown, at the prices of GpuTypes, else at the price above; all in one currency"),
            SMALL,
            "short",
            Query(f"sum({COST} or {USED_BY_JOB} / 3600 * {PRICE}) or vector(0)"),
            decimals=2,
        ),
        p.number(
            Text("Productive", "Share of the GPU time that went into steps that count"),
            SMALL,
            "percentunit",
            Query(f"{productive} / {USED}"),
        ),
        p.number(
            Text("Steps lost", "Trained more than once within the time shown"),
            SMALL,
            "none",
            Query(increase(m.JOB_LOST_STEPS, IN_NAMESPACES)),
            decimals=0,
        ),
        p.number(
            Text("Cost of lost work", "Replayed steps and starts, at the price above"),
            Box(8, 4),
            "short",
            Query(f"{increase(m.JOB_USAGE, IN_NAMESPACES, device='gpu', use='replayed|starting')} / 3600 * {PRICE}"),
            decimals=2,
        ),
        p.series(
            Text("GPU time by use", "GPUs busy on average: productive, or lost to starts, saves, repeated steps"),
            HALF,
            "short",
            Query(f"sum by (use) (rate({select(m.JOB_USAGE, IN_NAMESPACES, device='gpu')}[$__rate_interval]))", "{{use}}"),
            stacked=True,
        ),
        p.series(
            Text("GPUs by namespace", "Of trainer pods"),
            HALF,
            "short",
            Query(f"sum by (finetune_namespace) ({by_job(m.JOB_GPUS, IN_NAMESPACES)})", "{{finetune_namespace}}"),
            stacked=True,
        ),
    )


def budgets(dashboard: Dashboard) -> Dashboard:
    """What namespaces may still spend and write."""
    panels = []
    for title, text, metric in (
        ("Balance", "What is left of the Budgets: credits less settled", m.BUDGET_BALANCE),
        ("Reserved", "What jobs that run may still use", m.BUDGET_RESERVED),
        ("Settled", "What jobs have used, deleted ones too", m.BUDGET_SETTLED),
    ):
        query = Query(f"max by ({', '.join(m.BUDGET_LABELS)}) ({select(metric, IN_NAMESPACES)})", "{{finetune_namespace}} {{currency}}")
        panels.append(p.series(Text(title, f"{text}; by namespace, in its currency"), THIRD, "short", query))
    for title, text, metric in (
        ("Checkpoint quota", "Checkpoints that jobs may write, where a Budget limits them", m.BUDGET_QUOTA),
        ("Checkpoints written", "What jobs have written of it, deleted ones too", m.BUDGET_CHECKPOINTS),
    ):
        query = Query(f"max by (finetune_namespace) ({select(metric, IN_NAMESPACES)})", "{{finetune_namespace}}")
        panels.append(p.series(Text(title, f"{text}; by namespace"), THIRD, "short", query))
    return row(dashboard, "Budgets", *panels)


def jobs(dashboard: Dashboard) -> Dashboard:
    """The list of all jobs."""
    columns = {
        "Phase": Query(phase_code(IN_NAMESPACES, "reason")),
        "Done": Query(by_job(m.JOB_PROGRESS, IN_NAMESPACES)),
        "Loss": Query(by_job(m.JOB_LOSS, IN_NAMESPACES)),
        "Time left": Query(by_job(m.JOB_ETA, IN_NAMESPACES)),
        "Attempts": Query(by_job(m.JOB_ATTEMPTS, IN_NAMESPACES)),
        "GPUs": Query(by_job(m.JOB_GPUS, IN_NAMESPACES)),
        "Last sign of life": Query(age(m.JOB_LAST_PROGRESS, IN_NAMESPACES)),
        "Checkpoint age": Query(age(m.JOB_CHECKPOINT_TIME, IN_NAMESPACES)),
        "Cost": Query(total(m.JOB_COST, IN_NAMESPACES, "currency")),
    }
    units = {"Done": "percentunit", "Time left": "s", "Last sign of life": "s", "Checkpoint age": "s"}
    names = {"finetune_namespace": "Namespace", "finetune_job": "Job", "reason": "Reason"}
    text = Text("All jobs", "From the status of each job")
    return row(dashboard, "List", p.rows(text, Box(24, 10), columns, names=names, units=units, behind={"currency": "Currency"}))
