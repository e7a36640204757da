"""The other pods' side of the group: reports to pod 0 and follows its state."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3
from pydantic import ValidationError

from finetune_trainer.supervisor.group import GroupState, PodReport
from finetune_trainer.supervisor.stall import written_mebibytes

logger = logging.getLogger(__name__)
STARTING_INTERVAL_SECONDS = 0.5
RUNNING_INTERVAL_SECONDS = 2.0
SILENCE_LIMIT_SECONDS = 60.0
"""Pod 0 is lost when it has not answered for so long (after it once did)."""
TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)


class GroupClient:
    """Exchanges reports for the state in a thread of its own."""

    def __init__(
        self,
        url: str,
        report: PodReport,
        *,
        first_contact_seconds: float,
        on_state: Callable[[GroupState], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._url = url
        self._report = report
        self._state = GroupState()
        self._on_state, self._on_lost = on_state, on_lost
        self._limit = first_contact_seconds
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="group", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def report(self, **changes: Any) -> None:
        """Change this pod's report and send it now."""
        with self._changed:
            self._report = self._report.model_copy(update=changes)
        self._wake.set()

    def wait_for(self, condition: Callable[[GroupState], bool]) -> GroupState:
        """Wait until the state fulfils a condition. Raises ConnectionError when pod 0 is lost meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: condition(self._state) or self._failed or self._closed)
            if condition(self._state):
                return self._state
            raise ConnectionError("pod 0 is lost")

    def wait_for_round_after(self, number: int) -> GroupState:
        """Wait for a newer round, or for the word that all may start."""
        return self.wait_for(lambda state: state.may_start or state.round > number)

    def close(self, *, timeout: float = 3.0) -> None:
        """Report once more and end; waits at most ``timeout`` seconds."""
        self._closed = True
        self._wake.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        last_answer = time.monotonic()
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT, maxsize=1) as http:
            while True:
                closing = self._closed
                problem = self._exchange(http)
                if not problem:
                    last_answer, self._limit = time.monotonic(), SILENCE_LIMIT_SECONDS
                elif time.monotonic() - last_answer > self._limit and not closing:
                    self._give_up(f"pod 0 does not answer at {self._url.split('/v1/')[0]} for {self._limit:.0f} s: {problem}")
                    return
                if closing:
                    return
                self._wake.wait(RUNNING_INTERVAL_SECONDS if self._state.may_start else STARTING_INTERVAL_SECONDS)
                self._wake.clear()

    def _exchange(self, http: urllib3.PoolManager) -> str:
        """Post the report; returns what went wrong, empty when nothing did."""
        with self._changed:
            self._report = self._report.model_copy(update={"fetched": written_mebibytes()})
            body = self._report.to_json()
        try:
            answer = http.request("POST", self._url, body=body, headers={"Content-Type": "application/json"})
            if answer.status != 200:
                return f"status {answer.status}"
            state = GroupState.model_validate_json(answer.data)
        except (urllib3.exceptions.HTTPError, OSError, ValidationError) as error:
            return f"{type(error).__name__}: {error}"[:300]
        with self._changed:
            changed, self._state = state != self._state, state
            self._changed.notify_all()
        if changed:
            self._on_state(state)
        return ""

    def _give_up(self, reason: str) -> None:
        logger.error("%s", reason)
        with self._changed:
            self._failed = True
            self._changed.notify_all()
        self._on_lost(reason)
