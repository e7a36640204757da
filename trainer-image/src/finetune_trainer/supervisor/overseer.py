"""Looks after the processes of a pod: who hangs shows its stacks, who does not end when it has to is ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from finetune_api.contract.failures import EXIT_DONE, EXIT_STOPPED, EXIT_UNKNOWN, FailureClass
from finetune_trainer.supervisor.outcome import Outcome
from finetune_trainer.supervisor.situation import LeaveError
from finetune_trainer.supervisor.stall import Stall, StallGuard, own_stacks, written_mebibytes

if TYPE_CHECKING:
    from finetune_trainer.supervisor.session import Session

logger = logging.getLogger(__name__)
STRAGGLER_SECONDS = 30.0
"""After a rank of this pod failed, the others get this long to end by themselves."""
PEER_LOSS_SECONDS = 55.0
"""After another pod was lost, this pod's ranks get this long to notice."""
STACK_SECONDS = 3.0
"""Ranks that are about to be killed get this long to write their stacks to the log."""


class Overseer:
    """Called again and again by a session's thread."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.guard = StallGuard(session.inputs.spec.retry, session.board)
        self._stacks_at: float | None = None
        """When the ranks that are about to be killed were told to show their stacks."""

    def look(self) -> None:
        """Find stalls, end stragglers. Raises LeaveError for a start that hangs."""
        self._listen_to_pod()
        stall = self.guard.look()
        if stall is not None:
            self._stalled(stall)
        workers = self._session.crew.workers
        limit = self._straggler_limit() if workers.processes and not workers.are_done else None
        if limit is None or time.monotonic() <= limit:
            return
        if self._stacks_at is None:
            self._show_stacks()
        elif time.monotonic() > self._stacks_at + STACK_SECONDS:
            logger.warning("ranks that did not end are killed")
            workers.kill()

    def _listen_to_pod(self) -> None:
        """What the pod itself does before its ranks run and after they ended. The other pods' ranks are their own supervisors' to watch."""
        session = self._session
        if session.now.started is None and session.is_leader:
            progress = session.board.snapshot()
            self.guard.heard(None, progress.phase, (progress.counter, written_mebibytes(), session.bond.headway()))
        elif session.crew.workers.are_done and session.uploader is not None and not session.uploader.is_idle:
            self.guard.heard(None, "Uploading", session.uploader.files_sent)
        else:
            self.guard.ended(None)

    def _stalled(self, stall: Stall) -> None:
        session = self._session
        logger.error("%s", stall)
        self._show_stacks()
        if not self.guard.must_restart(stall):
            self._stacks_at = None
        elif session.now.started is None:
            raise LeaveError(Outcome(EXIT_UNKNOWN, FailureClass.STALLED, f"{stall}.", log_lines=own_stacks()))
        else:
            session.now.stall = stall
            session.bond.failing(str(stall))

    def _show_stacks(self) -> None:
        """Have every process of this pod write where it is to the log."""
        self._stacks_at = time.monotonic()
        self._session.crew.show_stacks()
        if not self._session.crew.workers.processes:
            logger.error("%s", own_stacks())

    def _straggler_limit(self) -> float | None:
        """When the ranks that still run have to be ended."""
        now = self._session.now
        exits = self._session.crew.workers.exits.values()
        failed = [exit_.at for exit_ in exits if exit_.code not in (EXIT_DONE, EXIT_STOPPED)]
        limits = [min(failed) + STRAGGLER_SECONDS] if failed else []
        if exits:
            limits.append(min(exit_.at for exit_ in exits) + self._session.inputs.spec.distributed.timeout_seconds)
        if now.lost:
            limits.append(now.lost_at + PEER_LOSS_SECONDS)
        if now.stall is not None:
            limits.append(0.0)
        return min(limits, default=None)
