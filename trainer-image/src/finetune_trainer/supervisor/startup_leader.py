"""Start-up of pod 0: claims the attempt, chooses the checkpoint with the group, has the rows prepared."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import CheckpointRef, Pinned
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.key import prepared_key
from finetune_trainer.protocol import PreparePlan, ResumePoint
from finetune_trainer.rewinds import CONDITION as REWOUND_CONDITION
from finetune_trainer.rewinds import describe
from finetune_trainer.store.probe import probe_store
from finetune_trainer.supervisor.attempt import Claim, check_pinned, claim_next_attempt, merge_pinned, read_pinned
from finetune_trainer.supervisor.events import Started
from finetune_trainer.supervisor.fitting import carry_way, pin_way
from finetune_trainer.supervisor.group_service import GroupService
from finetune_trainer.supervisor.heart import Heart
from finetune_trainer.supervisor.past import Past, read_past
from finetune_trainer.supervisor.prepared import (
    PrepareProcess,
    cached_rows,
    facts_of_rows,
    fetch_rows,
    put_samples,
    read_summary,
    rows_in_store,
    upload_rows,
)
from finetune_trainer.supervisor.restore import RejectedError, read_manifest
from finetune_trainer.supervisor.startup import (
    Course,
    Fetched,
    Inputs,
    Weights,
    build_plan,
    fetch_raw_data,
    fetch_weights,
    restore,
    resume_step,
)

logger = logging.getLogger(__name__)
REJECTED_CONDITION = "CheckpointRejected"
STORE_PATIENCE_SECONDS = 300.0
"""How long a start waits for the store."""
LATER_PATIENCE_SECONDS = 3600.0
"""How long an upload that nothing waits for is retried."""


class LeaderStartup:
    """One start of pod 0."""

    def __init__(
        self,
        inputs: Inputs,
        group: GroupService,
        prepare: PrepareProcess,
        heart: Heart,
        *,
        contact_seconds: float,
        on_attempt: Callable[[int], None],
    ) -> None:
        self._inputs, self._group, self._prepare, self._heart = inputs, group, prepare, heart
        self._contact_until = inputs.started + contact_seconds
        self._on_attempt = on_attempt
        self._store = inputs.store.with_patience(STORE_PATIENCE_SECONDS)
        self._board = inputs.board

    def run(self) -> Started:
        """Do everything up to the workers' plan."""
        for condition, message in probe_store(self._store).warnings.items():
            self._board.warn(condition, message)
        claim = claim_next_attempt(self._store, self._inputs.config, self._inputs.environment)
        attempt = claim.record.attempt
        self._on_attempt(attempt)
        self._group.publish(attempt=attempt)
        past = read_past(self._store, claim)
        self._carry_on(attempt, past)
        stored = None if claim.starts_anew else read_pinned(self._store)
        pool = ThreadPoolExecutor(1, thread_name_prefix="resume")
        try:
            choice = pool.submit(self._agree_on_checkpoint, claim)
            weights = fetch_weights(self._inputs, stored)
            known = weights.pinned.model_copy(update={"global_batch": self._inputs.global_batch})
            known = carry_way(known, stored)
            if stored is not None:
                check_pinned(stored, known)
            self._group.publish(pinned=known)
            rows, known = self._rows(weights, known, stored)
            known = pin_way(self._inputs, weights, rows, known)
            self._group.publish(pinned=known, prepared_key=known.prepared_key)
            parent, point = choice.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        step = resume_step(point)
        course = self._course(attempt, past, point)
        self._board.update(parent=parent, step=step, lost_steps=max(0, course.lost_until_step - step), rewinds=list(course.rewinds))
        self._board.warn(REWOUND_CONDITION, describe(course.rewinds))
        self._heart.note(lost_until_step=course.lost_until_step, rewinds=list(course.rewinds), diverged_step=None, steady_until=None)
        plan = build_plan(self._inputs, Fetched(weights, rows, point), course, stored or known)
        self._group.publish(may_start=True, lost_until_step=course.lost_until_step, rewinds=list(course.rewinds))
        return Started(plan, parent, step, known, stored, claim.starts_anew)

    def _agree_on_checkpoint(self, claim: Claim) -> tuple[CheckpointRef | None, ResumePoint | None]:
        """Try the candidates until one is good on every pod; all pods fall back together."""
        number = 0
        self._warn_of_damage(claim)
        for number, ref in enumerate(claim.candidates, start=1):
            problem, point = self._try_checkpoint(number, ref)
            if not problem:
                return ref.model_copy(update={"step": resume_step(point)}), point
            name = ref.uri or f"a{ref.attempt}/checkpoint-{ref.step}"
            if claim.is_wish:
                raise TrainerError(FailureClass.CHECKPOINT_INCOMPLETE, f"checkpoint.resumeFrom: {name} cannot be used: {problem}.")
            self._board.warn(REJECTED_CONDITION, f"{name} is not used: {problem}; the one before it is tried.")
            logger.warning("checkpoint %s rejected: %s", name, problem)
        self._group.publish(round=number + 1, resume=None, manifest_sha256=None)
        self._group.wait_for_round(number + 1, contact_until=self._contact_until)
        return None, None

    def _try_checkpoint(self, number: int, ref: CheckpointRef) -> tuple[str, ResumePoint | None]:
        """(problem, checkpoint on local disk); every pod's problem counts."""
        try:
            manifest, digest = (None, None) if ref.uri else read_manifest(self._store, ref)
            self._group.publish(round=number, resume=ref, manifest_sha256=digest)
            point = restore(self._inputs, ref, manifest)
        except RejectedError as error:
            return str(error), None
        problems = self._group.wait_for_round(number, contact_until=self._contact_until)
        return "; ".join(f"pod {pod}: {text}" for pod, text in sorted(problems.items())), point

    def _warn_of_damage(self, claim: Claim) -> None:
        """Say when the newest checkpoint is passed over because files are missing or cut short."""
        first = claim.candidates[0] if claim.candidates else None
        for found in claim.ledger.checkpoints:
            newer = first is None or first.uri is not None or (found.attempt, found.step) > (first.attempt, first.step)
            if found.manifest.resumable and found.damage and newer and not claim.is_wish:
                self._board.warn(
                    REJECTED_CONDITION, f"a{found.attempt}/checkpoint-{found.step} is not used: {found.damage[0]} is missing or cut short."
                )

    def _carry_on(self, attempt: int, past: Past) -> None:
        """Let everything this attempt counts begin where the last one ended."""
        if self._board.ledger is not None:
            self._board.ledger.carry(past.usage)
        self._heart.begin(past.first_heartbeat(attempt))

    def _course(self, attempt: int, past: Past, point: ResumePoint | None) -> Course:
        """What is taken over, now that the step training goes on from is known."""
        step = resume_step(point)
        return Course(
            attempt=attempt,
            lost_until_step=past.reached if past.reached > step else 0,
            rewinds=past.rewinds(point, step, goes_back=self._inputs.spec.retry.on_divergence == "rewind"),
            usage_before=past.usage,
        )

    def _rows(self, weights: Weights, known: Pinned, stored: Pinned | None) -> tuple[Path, Pinned]:
        """Prepared rows on local disk, and the facts about them."""
        self._board.update(phase="Preparing", counter=0)
        rows = self._find_rows(stored.prepared_key) if stored and stored.prepared_key else None
        if rows is not None and stored is not None:
            known = merge_pinned(known, stored.model_copy(update={"dtype": None, "versions": {}}))
        else:
            rows, known = self._make_rows(weights, known, stored)
        for condition, message in read_summary(rows).warnings.items():
            self._board.warn(condition, message)
        self._board.learn({**facts_of_rows(rows), "datasetDigest": known.dataset_digest or "", "modelRevision": known.model_revision or ""})
        return rows, known

    def _make_rows(self, weights: Weights, known: Pinned, stored: Pinned | None) -> tuple[Path, Pinned]:
        raw = fetch_raw_data(self._inputs, weights.stream, with_images=weights.has_vision)
        key = prepared_key(
            self._inputs.spec, tokenizer_digest=weights.tokenizer_digest, dataset_digest=raw.digest, has_vision=weights.has_vision
        )
        known = known.model_copy(update={"dataset_digest": raw.digest, "prepared_key": key})
        if stored is not None:
            check_pinned(stored, known)
        rows = self._find_rows(key)
        if rows is None:
            plan = PreparePlan(
                run_config=self._inputs.environment.run_config.absolute(),
                tokenizer_dir=weights.tokenizer_dir,
                train_files=raw.train,
                eval_files=raw.evaluation,
                output_dir=self._inputs.environment.cache_dir,
                dataset_digest=raw.digest,
                has_vision=weights.has_vision,
            )
            rows = self._prepare.run(plan, key)
        self._keep_rows(rows, key, raw.digest)
        return rows, known

    def _find_rows(self, key: str) -> Path | None:
        """Prepared rows of the cache, else of the store."""
        rows = cached_rows(self._inputs.environment.cache_dir, key)
        if rows is not None:
            return rows
        manifest = rows_in_store(self._store, key)
        return fetch_rows(self._store, manifest, self._inputs.environment.cache_dir) if manifest else None

    def _keep_rows(self, rows: Path, key: str, dataset_digest: str) -> None:
        """Upload rows the store lacks: before the start where other pods wait for them, beside training otherwise."""

        def upload() -> None:
            store = self._inputs.store.with_patience(LATER_PATIENCE_SECONDS)
            try:
                if rows_in_store(store, key) is None:
                    upload_rows(store, rows, key, dataset_digest)
                put_samples(store, rows)
            except TrainerError as error:
                logger.warning("prepared rows not kept in the store, they will be prepared again: %s", error.message)

        thread = threading.Thread(target=upload, name="keep-rows", daemon=True)
        thread.start()
        if self._inputs.config.topology.replicas > 1:
            thread.join()


def contact_seconds(timeout_seconds: int) -> float:
    """How long pods wait for each other's first word: at least two minutes, images may still be pulled."""
    return max(120.0, float(timeout_seconds))
