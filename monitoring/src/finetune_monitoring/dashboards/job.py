"""One job: what it does, how it learns, how fast, what it has saved, what it costs (T-03, T-09, T-10)."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from finetune_api.contract import metrics as m
from finetune_monitoring import panels as p
from finetune_monitoring.dashboards.frame import PRICE, frame, name, namespace, price, row
from finetune_monitoring.panels import Box, Query, Text
from finetune_monitoring.queries import ONE_JOB, age, by_job, least, phase_code, quantile, rate, total
from finetune_monitoring.variables import Annotation, datasource

SMALL: Final = Box(4, 4)
THIRD: Final = Box(8)
HALF: Final = Box(12)
GPU_SECONDS: Final = f"(sum({total(m.JOB_USAGE, ONE_JOB, 'use', device='gpu')}) or vector(0))"
NEW: Final = "1m"
"""A series that was not there this long ago is an event."""


def build() -> Dashboard:
    """The dashboard."""
    dashboard = frame("finetune-job", "FineTune / Job", "One fine-tuning job, live and after its end", since="6h")
    dashboard = dashboard.with_variable(datasource()).with_variable(namespace()).with_variable(name("Job")).with_variable(price())
    for annotation in marks():
        dashboard = dashboard.annotation(annotation)
    for add in (overview, learning, method, speed, checkpoints):
        dashboard = add(dashboard)
    return dashboard


def marks() -> list[Annotation]:
    """Phases the job entered, attempts that began."""
    phase, phase_before = (by_job(m.JOB_PHASE, ONE_JOB, "phase", "reason", ago=ago) for ago in ("", NEW))
    attempts, attempts_before = (by_job(m.JOB_ATTEMPTS, ONE_JOB, ago=ago) for ago in ("", NEW))
    return [
        Annotation("Phases", f"{phase} unless {phase_before}", colour="blue", title="{{phase}}", text="{{reason}}"),
        Annotation("Attempts", f"{attempts} > {attempts_before}", colour="orange", title="New attempt", text="{{finetune_job}}"),
    ]


def now(title: str, description: str, unit: str, metric: m.Metric, *, trend: bool = False) -> Builder[Panel]:
    """A number of the job as it is now; ``trend``: as a pod serves it, with its course behind it."""
    return p.number(Text(title, description), SMALL, unit, Query(by_job(metric, ONE_JOB)), trend=trend)


def curve(title: str, description: str, unit: str, metric: m.Metric, legend: str) -> Builder[Panel]:
    """One number of the job over time, a third of the page wide."""
    return p.series(Text(title, description), THIRD, unit, Query(by_job(metric, ONE_JOB), legend))


def overview(dashboard: Dashboard) -> Dashboard:
    """Where the job is."""
    return row(
        dashboard,
        "Now",
        p.phase_now(Text("Phase", "What the job does now"), SMALL, Query(phase_code(ONE_JOB))),
        now("Done", "Share of the optimizer steps done", "percentunit", m.JOB_PROGRESS),
        now("Step", "Optimizer steps done", "none", m.JOB_STEP),
        now("Time left", "Estimate from the last steps; none at rest", "s", m.JOB_ETA),
        now("Attempts", "Starts of the job's pods, first one included", "none", m.JOB_ATTEMPTS),
        p.number(
            Text("Cost", "Of the GPU time used so far, at the price of the GpuType, else at the price above; 0 on CPU"),
            SMALL,
            "short",
            Query(f"sum({total(m.JOB_COST, ONE_JOB)}) or {GPU_SECONDS} / 3600 * {PRICE}"),
            decimals=2,
        ),
        p.phase_timeline(Text("Phases", "What the job did when"), Box(16, 5), Query(phase_code(ONE_JOB), p.JOB_LEGEND)),
        p.bars(
            Text(
                "Time by use",
                "Of GPUs, on CPU of ranks; all attempts. Productive: steps that count. Replayed: steps that were lost",
            ),
            Box(8, 5),
            "s",
            Query(f"sum by (use) ({total(m.JOB_USAGE, ONE_JOB, 'use')})", "{{use}}"),
        ),
    )


def learning(dashboard: Dashboard) -> Dashboard:
    """Curves of the training."""
    return row(
        dashboard,
        "Learning",
        p.series(
            Text(
                "Loss",
                "Training at the logging interval, evaluation when it is due. Evaluation rising while training falls: overfitting",
            ),
            HALF,
            "none",
            Query(by_job(m.LOSS, ONE_JOB), "training"),
            Query(by_job(m.EVAL_LOSS, ONE_JOB), "evaluation"),
        ),
        p.on_step(
            Text("Loss by step", "The training loss over optimizer steps: what was trained again lies over what was lost"),
            HALF,
            "none",
            step=by_job(m.STEP, ONE_JOB),
            value=by_job(m.LOSS, ONE_JOB),
        ),
        curve("Learning rate", "Of the last step", "sci", m.LEARNING_RATE, "learning rate"),
        curve("Gradient norm", "Before clipping", "none", m.GRAD_NORM, "norm"),
        curve("Epoch", "Passes over the data done", "none", m.EPOCH, "epoch"),
    )


def method(dashboard: Dashboard) -> Dashboard:
    """Numbers of methods that score or compare answers (H-09)."""
    return row(
        dashboard,
        "Rewards and preferences",
        p.series(
            Text("Reward", "Mean score of the answers and its spread, methods grpo and reward. A spread of 0 teaches nothing"),
            THIRD,
            "none",
            Query(by_job(m.REWARD_MEAN, ONE_JOB), "mean"),
            Query(by_job(m.REWARD_STD, ONE_JOB), "spread"),
        ),
        curve("Distance to the reference", "Methods grpo and kto: how far the model has moved; beta holds it back", "none", m.KL, "KL"),
        curve(
            "Accuracy of preferences",
            "Methods dpo and reward: share of pairs whose better answer scores higher; half is chance",
            "percentunit",
            m.PREFERENCE_ACCURACY,
            "accuracy",
        ),
    )


def speed(dashboard: Dashboard) -> Dashboard:
    """What the hardware does."""
    usage = f"max by (use) (rate({m.USAGE_SECONDS}{{{ONE_JOB}}}[$__rate_interval]))"
    return row(
        dashboard,
        "Speed",
        curve("Tokens per second", "All ranks together", "short", m.TOKENS_PER_SECOND, "tokens/s"),
        p.series(
            Text("Step time", "Duration of an optimizer step: the last one, and the slowest of twenty"),
            THIRD,
            "s",
            Query(by_job(m.STEP_DURATION, ONE_JOB), "step"),
            Query(quantile(0.95, m.STEP_SECONDS, ONE_JOB), "p95"),
        ),
        p.series(Text("Use of time", "Share of each second by use"), THIRD, "percentunit", Query(usage, "{{use}}"), stacked=True),
        curve("GPU memory", "Most memory that rank 0 had allocated at once; nothing on CPU", "bytes", m.GPU_MEMORY, "peak"),
        curve(
            "Model FLOPs utilization",
            "Share of the GPUs' peak 16-bit arithmetic; nothing on CPU and on unknown GPUs",
            "percentunit",
            m.MFU,
            "MFU",
        ),
        p.series(
            Text(
                "Since the last headway",
                "Time since a counter of the slowest pod last moved: a step, a micro-batch, a token, a download",
            ),
            THIRD,
            "s",
            Query(f"time() - {least(m.LAST_HEADWAY, ONE_JOB)}", "no headway for"),
        ),
    )


def checkpoints(dashboard: Dashboard) -> Dashboard:
    """What is safe."""
    return row(
        dashboard,
        "Checkpoints",
        p.alarm(
            Text("Age of the newest", "Of the newest complete checkpoint in the store"),
            SMALL,
            "s",
            Query(age(m.JOB_CHECKPOINT_TIME, ONE_JOB)),
            orange=3600,
            red=7200,
        ),
        now("Newest step", "Step a restart would go on from", "none", m.JOB_CHECKPOINT_STEP),
        p.number(Text("Steps lost", "Trained more than once, over all attempts"), SMALL, "none", Query(total(m.JOB_LOST_STEPS, ONE_JOB))),
        now("Size", "Of the last complete checkpoint", "bytes", m.CHECKPOINT_BYTES, trend=True),
        now(
            "Skipped saves",
            "Replaced by a newer one before they were uploaded, or without space; of this attempt",
            "none",
            m.CHECKPOINTS_SKIPPED,
            trend=True,
        ),
        now("Upload errors", "Failed tries, each tried again; of this attempt", "none", m.UPLOAD_ERRORS, trend=True),
        p.series(
            Text("Durations", "Save: to local disk, training waits. Upload: to the store, training goes on"),
            HALF,
            "s",
            Query(by_job(m.CHECKPOINT_SAVE_DURATION, ONE_JOB), "save"),
            Query(by_job(m.CHECKPOINT_UPLOAD_DURATION, ONE_JOB), "upload"),
            Query(quantile(0.95, m.CHECKPOINT_SAVE_SECONDS, ONE_JOB), "save p95"),
            Query(quantile(0.95, m.CHECKPOINT_UPLOAD_SECONDS, ONE_JOB), "upload p95"),
        ),
        p.series(
            Text("Stall", "Share of time that training waited for saves"),
            HALF,
            "percentunit",
            Query(rate(m.CHECKPOINT_STALL, ONE_JOB), "stall"),
        ),
    )
