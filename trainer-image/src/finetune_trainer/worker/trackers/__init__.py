"""Experiment trackers: each in a thread of its own, none able to stop or slow training. A run keeps one identity over all attempts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from finetune_trainer.worker.trackers.feed import Feed
from finetune_trainer.worker.trackers.target import Connect, Target

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session

CLOSE_SECONDS: Final = 10.0


@contextmanager
def open_trackers(session: Session) -> Iterator[None]:
    """Feed the trackers of the spec (rank 0) until the block ends; they have :data:`CLOSE_SECONDS` together to take the last points."""
    if session.rank.is_first:
        for target in targets(session):
            warn = partial(session.warn, f"Tracker{target.type.capitalize()}Unavailable")
            session.feeds.append(Feed(target.type, partial(connector(target.type), target), warn))
    try:
        yield
    finally:
        for feed in session.feeds:
            feed.finish()
        deadline = time.monotonic() + CLOSE_SECONDS
        for feed in session.feeds:
            feed.join(deadline - time.monotonic())


def targets(session: Session) -> Iterator[Target]:
    """Describe each tracker of the spec."""
    plan, job = session.plan, session.config.job
    resumed = plan.resume.manifest.step if plan.resume is not None and plan.resume.manifest is not None else 0
    for tracker in session.spec.logging.trackers:
        yield Target(
            type=tracker.type,
            job_name=job.name,
            job_uid=job.uid,
            project=tracker.project or job.namespace,
            uri=tracker.uri,
            secrets=plan.tracker_secrets.get(tracker.type),
            directory=plan.tensorboard_dir,
            attempt=plan.attempt,
            first_step=resumed + 1,
            parameters=session.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=PARAMETERS),
        )


PARAMETERS = {"method", "model", "dataset", "adapter", "precision", "training", "evaluation", "early_stopping", "replicas"}
"""Blocks of the spec a tracker shows; none holds a secret, only names of them."""


def connector(kind: str) -> Connect:
    """Return the function that opens a kind of tracker; its library is imported only when it is called, in the tracker's thread."""
    if kind == "tensorboard":
        from finetune_trainer.worker.trackers.tensorboard_files import connect as tensorboard

        return tensorboard
    if kind == "wandb":
        from finetune_trainer.worker.trackers.wandb_run import connect as wandb

        return wandb
    from finetune_trainer.worker.trackers.mlflow_run import connect as mlflow

    return mlflow
