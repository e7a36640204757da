"""A pod's tie to its group, the same to use for pod 0 and for the others."""

from __future__ import annotations

import time
from typing import Protocol

from finetune_trainer.supervisor.events import GroupFinished, GroupLost, GroupStopping, StepsSkipped
from finetune_trainer.supervisor.group import GroupState, StopTrigger
from finetune_trainer.supervisor.group_client import SILENCE_LIMIT_SECONDS, GroupClient
from finetune_trainer.supervisor.group_service import GroupService
from finetune_trainer.supervisor.situation import EventQueue

FAREWELL_SECONDS = 15.0


class Bond(Protocol):
    """What a session tells its group."""

    def stopping(self, trigger: StopTrigger) -> None:
        """All ranks have to stop."""

    def failing(self, reason: str) -> None:
        """Say why this pod fails."""

    def skipping(self, steps: list[int]) -> None:
        """These saves are not uploaded (pod 0 only)."""

    def finished(self) -> None:
        """The final commit exists (pod 0), or this pod knows of it (others)."""

    def all_know(self) -> bool:
        """Whether every pod knows of the final commit."""

    def lost(self) -> str:
        """Why a silent peer has to be taken for lost; empty while none is."""

    def headway(self) -> int:
        """What the other pods have fetched, MiB."""

    def close(self) -> None:
        """Say farewell."""


class LeaderBond:
    """Pod 0's tie."""

    def __init__(self, service: GroupService) -> None:
        self._service = service

    def stopping(self, trigger: StopTrigger) -> None:
        """Publish the order."""
        self._service.publish(stopping=trigger)

    def failing(self, reason: str) -> None:
        """Publish why the group ends."""
        self._service.publish(lost=reason)

    def skipping(self, steps: list[int]) -> None:
        """Publish the skipped saves."""
        self._service.publish(skipped_steps=steps)

    def finished(self) -> None:
        """Publish that the final commit exists."""
        self._service.publish(has_finished=True)

    def all_know(self) -> bool:
        """Whether every pod knows."""
        return self._service.all_saw_finish()

    def lost(self) -> str:
        """Name the pod that has been silent for too long."""
        silent = self._service.silent_since()
        if silent is None or time.monotonic() - silent[1] < SILENCE_LIMIT_SECONDS:
            return ""
        return f"pod {silent[0]} has not been heard of for {SILENCE_LIMIT_SECONDS:.0f} s"

    def headway(self) -> int:
        """Sum over the reports."""
        return self._service.headway()

    def close(self) -> None:
        """Give the others a moment to read the last news, then stop answering."""
        self._service.wait_until_told(FAREWELL_SECONDS)
        self._service.close()


class MemberBond:
    """The tie of every other pod."""

    def __init__(self, client: GroupClient) -> None:
        self._client = client

    def stopping(self, trigger: StopTrigger) -> None:
        """Ask pod 0 to have all stop."""
        self._client.report(stopping=trigger)

    def failing(self, reason: str) -> None:
        """Tell pod 0."""
        self._client.report(failure=reason)

    def skipping(self, steps: list[int]) -> None:
        """Pod 0 alone decides what is skipped."""

    def finished(self) -> None:
        """Tell pod 0 that this pod knows."""
        self._client.report(saw_finish=True)

    def all_know(self) -> bool:
        """Leave it to pod 0 to wait for the others."""
        return True

    def lost(self) -> str:
        """The client itself notices when pod 0 is silent."""
        return ""

    def headway(self) -> int:
        """Pod 0 alone watches the start of all."""
        return 0

    def close(self) -> None:
        """Report for the last time."""
        self._client.report(has_left=True)
        self._client.close()


class StateFollower:
    """Turns changes of the group's state into events of a member."""

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._last = GroupState()

    def follow(self, state: GroupState) -> None:
        """Emit what is new."""
        last, self._last = self._last, state
        if state.stopping is not None and last.stopping is None:
            self._queue.put(GroupStopping(state.stopping))
        if state.skipped_steps != last.skipped_steps:
            self._queue.put(StepsSkipped(tuple(state.skipped_steps)))
        if state.has_finished and not last.has_finished:
            self._queue.put(GroupFinished())
        if state.lost and not last.lost:
            self._queue.put(GroupLost(f"pod 0: {state.lost}"))
