"""One job: what it does, how it learns, how fast, what it has saved, what it costs (T-03, T-09, T-10)."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from finetune_api.contract import metrics as m
from finetune_monitoring import panels as p
from finetune_monitoring.dashboards.frame import PRICE, frame, name, namespace, price
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


def overview(dashboard: Dashboard) -> Dashboard:
    """Where the job is."""
    return (
        dashboard.with_row(p.row("Now"))
        .with_panel(p.phase_now(Text("Phase", "What the job does now"), SMALL, Query(phase_code(ONE_JOB))))
        .with_panel(
            p.number(Text("Done", "Share of the optimizer steps done"), SMALL, "percentunit", Query(by_job(m.JOB_PROGRESS, ONE_JOB)))
        )
        .with_panel(p.number(Text("Step", "Optimizer steps done"), SMALL, "none", Query(by_job(m.JOB_STEP, ONE_JOB))))
        .with_panel(
            p.number(Text("Time left", "Estimate from the last steps; none at rest"), SMALL, "s", Query(by_job(m.JOB_ETA, ONE_JOB)))
        )
        .with_panel(
            p.number(
                Text("Attempts", "Starts of the job's pods, first one included"), SMALL, "none", Query(by_job(m.JOB_ATTEMPTS, ONE_JOB))
            )
        )
        .with_panel(
            p.number(
                Text("Cost", "GPU hours used so far times the price above; 0 on CPU"),
                SMALL,
                "short",
                Query(f"{GPU_SECONDS} / 3600 * {PRICE}"),
                decimals=2,
            )
        )
        .with_panel(p.phase_timeline(Text("Phases", "What the job did when"), Box(16, 5), Query(phase_code(ONE_JOB), p.JOB_LEGEND)))
        .with_panel(
            p.bars(
                Text(
                    "Time by use",
                    "Of GPUs, on CPU of ranks; all attempts. Productive: steps that count. Replayed: steps that were lost",
                ),
                Box(8, 5),
                "s",
                Query(f"sum by (use) ({total(m.JOB_USAGE, ONE_JOB, 'use')})", "{{use}}"),
            )
        )
    )


def learning(dashboard: Dashboard) -> Dashboard:
    """Curves of the training."""
    return (
        dashboard.with_row(p.row("Learning"))
        .with_panel(
            p.series(
                Text(
                    "Loss",
                    "Training at the logging interval, evaluation when it is due. Evaluation rising while training falls: overfitting",
                ),
                HALF,
                "none",
                Query(by_job(m.LOSS, ONE_JOB), "training"),
                Query(by_job(m.EVAL_LOSS, ONE_JOB), "evaluation"),
            )
        )
        .with_panel(
            p.on_step(
                Text("Loss by step", "The training loss over optimizer steps: what was trained again lies over what was lost"),
                HALF,
                "none",
                step=by_job(m.STEP, ONE_JOB),
                value=by_job(m.LOSS, ONE_JOB),
            )
        )
        .with_panel(
            p.series(Text("Learning rate", "Of the last step"), THIRD, "sci", Query(by_job(m.LEARNING_RATE, ONE_JOB), "learning rate"))
        )
        .with_panel(p.series(Text("Gradient norm", "Before clipping"), THIRD, "none", Query(by_job(m.GRAD_NORM, ONE_JOB), "norm")))
        .with_panel(p.series(Text("Epoch", "Passes over the data done"), THIRD, "none", Query(by_job(m.EPOCH, ONE_JOB), "epoch")))
    )


def method(dashboard: Dashboard) -> Dashboard:
    """Numbers of methods that score or compare answers (H-09)."""
    return (
        dashboard.with_row(p.row("Rewards and preferences"))
        .with_panel(
            p.series(
                Text("Reward", "Mean score of the answers and its spread, methods grpo and reward. A spread of 0 teaches nothing"),
                THIRD,
                "none",
                Query(by_job(m.REWARD_MEAN, ONE_JOB), "mean"),
                Query(by_job(m.REWARD_STD, ONE_JOB), "spread"),
            )
        )
        .with_panel(
            p.series(
                Text("Distance to the reference", "Methods grpo and kto: how far the model has moved; beta holds it back"),
                THIRD,
                "none",
                Query(by_job(m.KL, ONE_JOB), "KL"),
            )
        )
        .with_panel(
            p.series(
                Text("Accuracy of preferences", "Methods dpo and reward: share of pairs whose better answer scores higher; half is chance"),
                THIRD,
                "percentunit",
                Query(by_job(m.PREFERENCE_ACCURACY, ONE_JOB), "accuracy"),
            )
        )
    )


def speed(dashboard: Dashboard) -> Dashboard:
    """What the hardware does."""
    usage = f"max by (use) (rate({m.USAGE_SECONDS}{{{ONE_JOB}}}[$__rate_interval]))"
    return (
        dashboard.with_row(p.row("Speed"))
        .with_panel(
            p.series(
                Text("Tokens per second", "All ranks together"), THIRD, "short", Query(by_job(m.TOKENS_PER_SECOND, ONE_JOB), "tokens/s")
            )
        )
        .with_panel(
            p.series(
                Text("Step time", "Duration of an optimizer step: the last one, and the slowest of twenty"),
                THIRD,
                "s",
                Query(by_job(m.STEP_DURATION, ONE_JOB), "step"),
                Query(quantile(0.95, m.STEP_SECONDS, ONE_JOB), "p95"),
            )
        )
        .with_panel(
            p.series(Text("Use of time", "Share of each second by use"), THIRD, "percentunit", Query(usage, "{{use}}"), stacked=True)
        )
        .with_panel(
            p.series(
                Text("GPU memory", "Most memory that rank 0 had allocated at once; nothing on CPU"),
                THIRD,
                "bytes",
                Query(by_job(m.GPU_MEMORY, ONE_JOB), "peak"),
            )
        )
        .with_panel(
            p.series(
                Text("Model FLOPs utilization", "Share of the GPUs' peak 16-bit arithmetic; nothing on CPU and on unknown GPUs"),
                THIRD,
                "percentunit",
                Query(by_job(m.MFU, ONE_JOB), "MFU"),
            )
        )
        .with_panel(
            p.series(
                Text(
                    "Since the last headway",
                    "Time since a counter of the slowest pod last moved: a step, a micro-batch, a token, a download",
                ),
                THIRD,
                "s",
                Query(f"time() - {least(m.LAST_HEADWAY, ONE_JOB)}", "no headway for"),
            )
        )
    )


def checkpoints(dashboard: Dashboard) -> Dashboard:
    """What is safe."""
    return (
        dashboard.with_row(p.row("Checkpoints"))
        .with_panel(
            p.alarm(
                Text("Age of the newest", "Of the newest complete checkpoint in the store"),
                SMALL,
                "s",
                Query(age(m.JOB_CHECKPOINT_TIME, ONE_JOB)),
                orange=3600,
                red=7200,
            )
        )
        .with_panel(
            p.number(Text("Newest step", "Step a restart would go on from"), SMALL, "none", Query(by_job(m.JOB_CHECKPOINT_STEP, ONE_JOB)))
        )
        .with_panel(
            p.number(
                Text("Steps lost", "Trained more than once, over all attempts"), SMALL, "none", Query(total(m.JOB_LOST_STEPS, ONE_JOB))
            )
        )
        .with_panel(
            p.number(
                Text("Size", "Of the last complete checkpoint"), SMALL, "bytes", Query(by_job(m.CHECKPOINT_BYTES, ONE_JOB)), trend=True
            )
        )
        .with_panel(
            p.number(
                Text("Skipped saves", "Replaced by a newer one before they were uploaded, or without space; of this attempt"),
                SMALL,
                "none",
                Query(by_job(m.CHECKPOINTS_SKIPPED, ONE_JOB)),
                trend=True,
            )
        )
        .with_panel(
            p.number(
                Text("Upload errors", "Failed tries, each tried again; of this attempt"),
                SMALL,
                "none",
                Query(by_job(m.UPLOAD_ERRORS, ONE_JOB)),
                trend=True,
            )
        )
        .with_panel(
            p.series(
                Text("Durations", "Save: to local disk, training waits. Upload: to the store, training goes on"),
                HALF,
                "s",
                Query(by_job(m.CHECKPOINT_SAVE_DURATION, ONE_JOB), "save"),
                Query(by_job(m.CHECKPOINT_UPLOAD_DURATION, ONE_JOB), "upload"),
                Query(quantile(0.95, m.CHECKPOINT_SAVE_SECONDS, ONE_JOB), "save p95"),
                Query(quantile(0.95, m.CHECKPOINT_UPLOAD_SECONDS, ONE_JOB), "upload p95"),
            )
        )
        .with_panel(
            p.series(
                Text("Stall", "Share of time that training waited for saves"),
                HALF,
                "percentunit",
                Query(rate(m.CHECKPOINT_STALL, ONE_JOB), "stall"),
            )
        )
    )
