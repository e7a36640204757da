"""Posts progress to the operator and brings back its commands. A thread of its own: nothing here ever slows or stops training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from pydantic import ValidationError

from finetune_api.contract.progress import Command, FineTuneProgress, KubeflowMetric, ProgressPost, ProgressReply, TrainerStatus
from finetune_api.contract.run_config import ProgressConfig
from finetune_trainer.store.checkpoints import timestamp
from finetune_trainer.supervisor.board import Board

logger = logging.getLogger(__name__)
TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
URGENT_INTERVAL_SECONDS = 1.0
"""Between two tries to deliver that training stopped or finished."""


class Reporter:
    """Posts at least every ``interval_seconds``, at once when woken."""

    def __init__(
        self,
        config: ProgressConfig,
        board: Board,
        *,
        token: Path,
        ca: Path,
        on_command: Callable[[Command], None],
        on_superseded: Callable[[str], None],
    ) -> None:
        self._config = config
        self._board = board
        self._token, self._ca = token, ca
        self._on_command, self._on_superseded = on_command, on_superseded
        self._seen: set[str] = set()
        self._ca_content: bytes | None = None
        self._http: urllib3.PoolManager | None = None
        self._last_problem = ""
        self._wake = threading.Event()
        self._closed = False
        self.stopped_accepted = threading.Event()
        """The operator stored that training stopped."""
        self.finished_accepted = threading.Event()
        """The operator stored that training finished."""
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def wake(self) -> None:
        """Post now."""
        self._wake.set()

    def close(self, *, timeout: float = 2.0) -> None:
        """Post once more and end; waits at most ``timeout`` seconds."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            last = self._closed
            progress = self._board.snapshot()
            try:
                self._post(progress)
            except Exception:  # a bug here must not end reporting, let alone training
                logger.exception("posting progress failed unexpectedly")
            if last:
                return
            urgent = (progress.stopped and not self.stopped_accepted.is_set()) or (
                progress.finished and not self.finished_accepted.is_set()
            )
            self._wake.wait(min(URGENT_INTERVAL_SECONDS, self._config.interval_seconds) if urgent else self._config.interval_seconds)
            self._wake.clear()

    def _post(self, progress: FineTuneProgress) -> None:
        body = ProgressPost(trainer_status=kubeflow_status(progress, now=datetime.now(UTC)), finetune=progress).to_json()
        try:
            token = self._token.read_text(encoding="utf-8").strip()
            answer = self._client().request(
                "POST",
                self._config.url,
                body=body,
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                timeout=TIMEOUT,
            )
        except (OSError, urllib3.exceptions.HTTPError) as error:
            self._note_problem(f"{type(error).__name__}: {error}")
            return
        if answer.status == 200:
            self._accepted(progress, answer.data)
        elif answer.status == 409:
            self._on_superseded("the operator knows a newer attempt")
        else:
            self._note_problem(f"status {answer.status}: {answer.data[:200].decode(errors='replace')}")

    def _accepted(self, progress: FineTuneProgress, data: bytes) -> None:
        self._note_problem("")
        if progress.stopped is not None:
            self.stopped_accepted.set()
        if progress.finished is not None:
            self.finished_accepted.set()
        try:
            reply = ProgressReply.model_validate_json(data)
        except ValidationError as error:
            self._note_problem(f"reply not understood: {error.errors()[0]['msg']}")
            return
        for command in reply.commands:
            if command.id not in self._seen:
                self._seen.add(command.id)
                self._on_command(command)

    def _client(self) -> urllib3.PoolManager:
        """Client that trusts the CA file as it is now: it is replaced when the CA rotates."""
        content = self._ca.read_bytes() if self._ca.is_file() else None
        if self._http is None or content != self._ca_content:
            self._ca_content = content
            self._http = urllib3.PoolManager(
                retries=False,
                maxsize=1,
                cert_reqs="CERT_REQUIRED",
                ca_cert_data=content.decode() if content else None,
            )
        return self._http

    def _note_problem(self, problem: str) -> None:
        """Log a change, not each repetition."""
        if problem and not self._last_problem:
            logger.warning("progress cannot be posted, training goes on: %s", problem[:500])
        elif not problem and self._last_problem:
            logger.info("progress is posted again")
        self._last_problem = problem


def kubeflow_status(progress: FineTuneProgress, *, now: datetime) -> TrainerStatus:
    """The stock part of a post."""
    remaining = progress.total_steps - progress.step
    values = {
        "loss": progress.loss,
        "eval_loss": progress.eval_loss,
        "learning_rate": progress.learning_rate,
        "grad_norm": progress.grad_norm,
        "epoch": progress.epoch,
        **progress.metrics,
    }
    return TrainerStatus(
        last_updated_time=timestamp(now),
        progress_percentage=min(100, 100 * progress.step // progress.total_steps) if progress.total_steps else None,
        estimated_remaining_seconds=round(remaining * progress.step_seconds) if progress.step_seconds and progress.total_steps else None,
        metrics=[KubeflowMetric(name=name, value=repr(value)) for name, value in values.items() if value is not None],
    )
