"""Start-up of every pod but pod 0: follows pod 0's decisions, checks its own files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import CheckpointRef, Pinned
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import ResumePoint
from finetune_trainer.supervisor.attempt import check_pinned
from finetune_trainer.supervisor.events import Started
from finetune_trainer.supervisor.group import GroupState
from finetune_trainer.supervisor.group_client import GroupClient
from finetune_trainer.supervisor.prepared import cached_rows, fetch_rows, rows_in_store
from finetune_trainer.supervisor.restore import RejectedError, read_manifest
from finetune_trainer.supervisor.startup import Course, Fetched, Inputs, build_plan, fetch_weights, restore, resume_step
from finetune_trainer.supervisor.startup_leader import STORE_PATIENCE_SECONDS

logger = logging.getLogger(__name__)


class MemberStartup:
    """One start of a pod other than 0."""

    def __init__(self, inputs: Inputs, group: GroupClient, *, on_attempt: Callable[[int], None]) -> None:
        self._inputs, self._group = inputs, group
        self._on_attempt = on_attempt
        self._store = inputs.store.with_patience(STORE_PATIENCE_SECONDS)

    def run(self) -> Started:
        """Do everything up to the workers' plan."""
        try:
            return self._run()
        except ConnectionError as error:
            raise TrainerError(FailureClass.PEER_LOST, f"{error}.") from error

    def _run(self) -> Started:
        attempt = self._group.wait_for(lambda state: state.attempt > 0).attempt
        self._on_attempt(attempt)
        pool = ThreadPoolExecutor(1, thread_name_prefix="resume")
        try:
            choice = pool.submit(self._follow_rounds)
            pinned = self._group.wait_for(lambda state: state.pinned is not None).pinned
            assert pinned is not None
            weights = fetch_weights(self._inputs, pinned)
            check_pinned(pinned, weights.pinned)
            state = self._group.wait_for(lambda state: bool(state.prepared_key))
            key, pinned = state.prepared_key or "", state.pinned
            assert pinned is not None
            rows = self._rows(key)
            parent, point = choice.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        state = self._group.wait_for(lambda state: state.may_start)
        step = resume_step(point)
        self._inputs.board.update(parent=parent, step=step)
        known = Pinned.model_validate({**pinned.model_dump(), "prepared_key": key})
        fetched = Fetched(weights, rows, point)
        course = Course(attempt=attempt, lost_until_step=state.lost_until_step, rewinds=state.rewinds)
        plan = build_plan(self._inputs, fetched, course, known)
        return Started(plan, parent, step, known)

    def _follow_rounds(self) -> tuple[CheckpointRef | None, ResumePoint | None]:
        """Check the checkpoint of each round and say so, until pod 0 says that all pods may start."""
        checked, parent, point = 0, None, None
        while True:
            state = self._group.wait_for_round_after(checked)
            if state.round <= checked:
                return parent, point
            checked, parent = state.round, state.resume
            problem, point = self._check(state)
            self._group.report(round=checked, problem=problem)

    def _check(self, state: GroupState) -> tuple[str, ResumePoint | None]:
        if state.resume is None:
            return "", None
        try:
            if state.resume.uri is not None:
                return "", restore(self._inputs, state.resume, None)
            manifest, digest = read_manifest(self._store, state.resume)
            if digest != state.manifest_sha256:
                return "its manifest is not the one pod 0 read", None
            return "", restore(self._inputs, state.resume, manifest)
        except RejectedError as error:
            return str(error), None

    def _rows(self, key: str) -> Path:
        rows = cached_rows(self._inputs.environment.cache_dir, key)
        if rows is None:
            manifest = rows_in_store(self._store, key)
            rows = fetch_rows(self._store, manifest, self._inputs.environment.cache_dir) if manifest else None
        if rows is None:
            raise TrainerError(FailureClass.STORAGE_UNAVAILABLE, f"the prepared rows {key} are not complete in the store.")
        return rows
