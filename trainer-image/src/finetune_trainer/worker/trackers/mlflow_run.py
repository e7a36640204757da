"""MLflow: one run per job, found again by a tag."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

from finetune_trainer.worker.trackers.target import Target, dotted

TAG: Final = "finetune.job.uid"
CREDENTIALS: Final = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
HTTP: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""The library's own two minutes and seven retries would outlast the end of a run."""
MAX_VALUE: Final = 500
"""Longest parameter value all servers take, in characters."""


class MlflowRun:
    """An open run."""

    def __init__(self, target: Target) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=target.uri)
        experiment = self._client.get_experiment_by_name(target.project)
        experiment_id = experiment.experiment_id if experiment is not None else self._client.create_experiment(target.project)
        found = self._client.search_runs([experiment_id], filter_string=f"tags.`{TAG}` = '{target.job_uid}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment_id, run_name=target.job_name, tags={TAG: target.job_uid}).info.run_id
        for name, value in dotted(target.parameters).items():
            self._client.log_param(self._id, name, str(value)[:MAX_VALUE])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        """Mark the run as ended; a later attempt sets it running again."""
        self._client.set_terminated(self._id)


def connect(target: Target) -> MlflowRun:
    """Open the run.

    Raises :class:`ValueError` without a server's address, and whatever mlflow raises.
    """
    if target.uri is None:
        raise ValueError("logging.trackers: mlflow needs uri, the address of the tracking server")
    os.environ.update(HTTP)
    for name in CREDENTIALS:
        if (value := target.secret(name)) is not None:
            os.environ[name] = value
    return MlflowRun(target)
