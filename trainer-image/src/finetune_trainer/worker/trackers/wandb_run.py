"""Weights & Biases: one run per job, continued by every attempt."""

from __future__ import annotations

import os
from collections.abc import Mapping

from finetune_trainer.worker.trackers.target import Target, dotted

API_KEY = "WANDB_API_KEY"
STEP = "step"
"""Our own x-axis: the server drops points whose built-in step is not above the last one, as those of replayed steps."""


class WandbRun:
    """An open run."""

    def __init__(self, target: Target) -> None:
        import wandb

        # Without an address of its own the library keeps its default server; it takes no None for one.
        server = {"base_url": target.uri} if target.uri is not None else {}
        settings = wandb.Settings(
            **server,
            init_timeout=30,
            console="off",
            disable_git=True,
            disable_code=True,
            silent=True,
        )
        self._run = wandb.init(
            id=target.job_uid,
            name=target.job_name,
            project=target.project,
            resume="allow",
            dir=str(target.directory.parent),
            config=dotted(target.parameters),
            settings=settings,
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step."""
        self._run.log({STEP: step, **values})

    def close(self) -> None:
        """Finish this part of the run."""
        self._run.finish()


def connect(target: Target) -> WandbRun:
    """Open the run.

    Raises :class:`ValueError` when the key is missing, and whatever wandb raises.
    """
    key = target.secret(API_KEY)
    if key is None:
        raise ValueError(f"logging.trackers: the Secret of wandb has no key {API_KEY}")
    os.environ[API_KEY] = key
    return WandbRun(target)
