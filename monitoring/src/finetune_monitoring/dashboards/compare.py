"""Two or more jobs side by side: configuration, curves on step and on time, outcomes (U-02)."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from finetune_api.contract import metrics as m
from finetune_monitoring import panels as p
from finetune_monitoring.dashboards.frame import PRICE, frame, name, namespace, price, row
from finetune_monitoring.panels import JOB_LEGEND, Box, Query, Text
from finetune_monitoring.queries import BY_JOB, ONE_JOB, by_job, differences, duration, phase_code, total
from finetune_monitoring.variables import datasource

WHOLE: Final = Box(24, 7)
HALF: Final = Box(12, 8)
THIRD: Final = Box(8)
JOB_NAMES: Final = {"finetune_namespace": "Namespace", "finetune_job": "Job"}
GPU_SECONDS: Final = f"sum by ({BY_JOB}) ({total(m.JOB_USAGE, ONE_JOB, 'use', device='gpu')})"


def build() -> Dashboard:
    """The dashboard."""
    dashboard = frame("finetune-compare", "FineTune / Compare", "Fine-tuning jobs side by side", since="24h")
    dashboard = dashboard.with_variable(datasource()).with_variable(namespace(many=True))
    dashboard = dashboard.with_variable(name("Jobs", many=True)).with_variable(price())
    for add in (tables, on_step, on_time):
        dashboard = add(dashboard)
    return dashboard


def tables(dashboard: Dashboard) -> Dashboard:
    """What was trained and what came out."""
    outcomes = {
        "Phase": Query(phase_code(ONE_JOB, "reason")),
        "Duration": Query(duration(ONE_JOB)),
        "Done": Query(by_job(m.JOB_PROGRESS, ONE_JOB)),
        "Step": Query(by_job(m.JOB_STEP, ONE_JOB)),
        "Loss": Query(by_job(m.JOB_LOSS, ONE_JOB)),
        "Evaluation loss": Query(by_job(m.JOB_EVAL_LOSS, ONE_JOB)),
        "Attempts": Query(by_job(m.JOB_ATTEMPTS, ONE_JOB)),
        "Steps lost": Query(total(m.JOB_LOST_STEPS, ONE_JOB)),
        "GPU time": Query(GPU_SECONDS),
        "Cost": Query(f"{total(m.JOB_COST, ONE_JOB)} or {GPU_SECONDS} / 3600 * {PRICE}"),
    }
    headings = JOB_NAMES | {label: label.replace("_", " ").capitalize() for label in m.CONFIG_LABELS}
    config = f"max by ({', '.join((*JOB_NAMES, *m.CONFIG_LABELS))}) ({m.JOB_INFO}{{{ONE_JOB}}})"
    return row(
        dashboard,
        "Configuration and outcome",
        p.matrix(
            Text("Differences", "Only what is not the same in all jobs chosen"),
            WHOLE,
            Query(differences(ONE_JOB)),
            ("parameter", "of", "value"),
            heading="Parameter",
        ),
        p.rows(
            Text("Configuration", "As resolved from job, preset and defaults"), WHOLE, {"Jobs": Query(config)}, names=headings, units={}
        ),
        p.rows(
            Text("Outcome", "From the job's status: also of jobs whose pods are gone. Reason: why it failed or rests"),
            WHOLE,
            outcomes,
            names=JOB_NAMES | {"reason": "Reason"},
            units={"Done": "percentunit", "Duration": "dtdurations", "GPU time": "dtdurations"},
        ),
    )


def on_step(dashboard: Dashboard) -> Dashboard:
    """Curves over optimizer steps: equal work side by side, whenever it was done."""
    step = by_job(m.STEP, ONE_JOB)
    curves = {
        "Training loss": ("Training loss over optimizer steps", "none", m.LOSS),
        "Evaluation loss": ("Evaluation loss over optimizer steps", "none", m.EVAL_LOSS),
        "Learning rate": ("Learning rate over optimizer steps", "sci", m.LEARNING_RATE),
        "Gradient norm": ("Gradient norm before clipping over optimizer steps", "none", m.GRAD_NORM),
        "Reward": ("Mean score of the answers over optimizer steps; methods grpo and reward", "none", m.REWARD_MEAN),
        "Distance to the reference": ("How far the model has moved over optimizer steps; methods grpo and kto", "none", m.KL),
    }
    panels = (
        p.on_step(Text(title, description), HALF, unit, step=step, value=by_job(metric, ONE_JOB))
        for title, (description, unit, metric) in curves.items()
    )
    return row(dashboard, "By step", *panels)


def on_time(dashboard: Dashboard) -> Dashboard:
    """Curves over time."""
    return row(
        dashboard,
        "By time",
        p.phase_timeline(Text("Phases", "What each job did when"), Box(24, 5), Query(phase_code(ONE_JOB), JOB_LEGEND)),
        p.series(Text("Training loss by time", "At the logging interval"), THIRD, "none", Query(by_job(m.LOSS, ONE_JOB), JOB_LEGEND)),
        p.series(
            Text("Evaluation loss by time", "At each evaluation"),
            THIRD,
            "none",
            Query(by_job(m.EVAL_LOSS, ONE_JOB), JOB_LEGEND),
            points=True,
        ),
        p.series(Text("Step by time", "Optimizer steps done"), THIRD, "none", Query(by_job(m.JOB_STEP, ONE_JOB), JOB_LEGEND)),
        p.series(Text("Tokens per second", "All ranks together"), THIRD, "short", Query(by_job(m.TOKENS_PER_SECOND, ONE_JOB), JOB_LEGEND)),
        p.series(Text("Step time", "Duration of an optimizer step"), THIRD, "s", Query(by_job(m.STEP_DURATION, ONE_JOB), JOB_LEGEND)),
        p.bars(Text("GPU time", "Used so far, all attempts"), THIRD, "s", Query(GPU_SECONDS, JOB_LEGEND)),
    )
