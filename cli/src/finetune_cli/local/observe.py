"""A local run seen as a FineTuneJob: the status an operator would write, from the store and the live figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from finetune_api.contract import metrics as names
from finetune_api.contract.failures import CODE_PRECEDENCE, EXIT_DONE, EXIT_STOPPED, REACTIONS, FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import FINAL_PREFIX, MANIFEST, AttemptRecord, FinalManifest, Manifest, attempt_number
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import (
    Artifacts,
    AttemptStatus,
    CheckpointsStatus,
    CheckpointStatus,
    FailureStatus,
    FineTuneJobStatus,
    Phase,
    StatusProgress,
)
from finetune_cli.job import Job, JobRef
from finetune_cli.local.figures import Figures
from finetune_cli.store import DirectoryStore

RECENT: Final = 5
_CHECKPOINT_MANIFEST: Final = re.compile(rf"a[0-9]+/checkpoint-[0-9]+/{re.escape(MANIFEST)}")
_TRAINER_PHASES: Final = {
    "Starting": Phase.STARTING,
    "Preparing": Phase.STARTING,
    "Loading": Phase.STARTING,
    "Evaluating": Phase.EVALUATING,
    "Exporting": Phase.EXPORTING,
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run is, for the time left: steps since a reading."""

    step: int
    at: float
    """Monotonic seconds."""

    def seconds_left(self, step: int, total: int, now: float) -> int | None:
        """Time to the end at the pace since this reading; None before there is one."""
        if step <= self.step or total == 0:
            return None
        return round((total - step) * (now - self.at) / (step - self.step))


def observe(config: RunConfig, store: DirectoryStore, figures: Figures, phase: Phase, eta_seconds: int | None) -> Job:
    """Compose the job as it is now."""
    checkpoints = read_checkpoints(store)
    attempts = read_attempts(store)
    total = figures.whole(names.TOTAL_STEPS)
    step = max(figures.whole(names.STEP), attempts[-1].from_step if attempts else 0)
    status = FineTuneJobStatus(
        observed_generation=config.run,
        phase=phase,
        run=config.run,
        attempts=attempts[-10:],
        attempt_count=len(attempts),
        output_uri=store.uri,
        progress=StatusProgress(
            run=config.run,
            attempt=figures.whole(names.ATTEMPT),
            phase=figures.phase,
            step=step,
            total_steps=total,
            percent=100 * step // total if total else 0,
            epoch=figures.values.get(names.EPOCH, 0.0),
            loss=figures.values.get(names.LOSS),
            eval_loss=figures.values.get(names.EVAL_LOSS),
            tokens_per_second=figures.values.get(names.TOKENS_PER_SECOND),
            eta_seconds=eta_seconds,
        ),
        checkpoints=CheckpointsStatus(latest=checkpoints[-1] if checkpoints else None, recent=checkpoints[-RECENT:]),
        replicas=0 if phase in {Phase.PAUSED, Phase.SUCCEEDED, Phase.FAILED} else config.topology.replicas,
    )
    ref = JobRef(config.job.name, config.job.namespace)
    return Job(ref=ref, uid=config.job.uid, generation=config.run, created_at="", annotations={}, spec={}, status=status)


def running_phase(figures: Figures, *, pausing: bool) -> Phase:
    """Phase of a job whose pods run."""
    return Phase.PAUSING if pausing else _TRAINER_PHASES.get(figures.phase, Phase.TRAINING)


def ended_phase(exit_codes: Sequence[int]) -> Phase:
    """Phase of a job whose pods have all ended."""
    if all(code == EXIT_DONE for code in exit_codes):
        return Phase.SUCCEEDED
    return Phase.PAUSED if all(code in {EXIT_DONE, EXIT_STOPPED} for code in exit_codes) else Phase.FAILED


def with_end(job: Job, store: DirectoryStore, exit_codes: Sequence[int], messages: Sequence[TerminationMessage | None]) -> Job:
    """Add what is known when all pods have ended: result, reason of a pause, or failure."""
    match job.phase:
        case Phase.SUCCEEDED:
            end: dict[str, object] = {"artifacts": read_artifacts(store)}
        case Phase.PAUSED:
            end = {"reason": "UserRequested"}
        case _:
            failure = find_failure(exit_codes, messages)
            end = {"reason": failure.failure_class.value, "failure": failure}
    return replace(job, status=job.status.model_copy(update=end))


def read_checkpoints(store: DirectoryStore) -> list[CheckpointStatus]:
    """Complete checkpoints, oldest first by attempt and step."""
    found = [Manifest.model_validate_json(store.read(file.key)) for file in store.files("a") if _CHECKPOINT_MANIFEST.fullmatch(file.key)]
    return [
        CheckpointStatus(
            step=manifest.step,
            attempt=manifest.attempt,
            uri=f"{store.uri}/a{manifest.attempt}/checkpoint-{manifest.step}",
            size_bytes=manifest.size_bytes,
            created_at=manifest.created_at,
            trigger=manifest.trigger,
            eval_loss=manifest.metrics.get("eval_loss"),
            resumable=manifest.resumable,
        )
        for manifest in sorted(found, key=lambda manifest: (manifest.attempt, manifest.step))
    ]


def read_attempts(store: DirectoryStore) -> list[AttemptStatus]:
    """Claimed attempts, oldest first."""
    keys = [file.key for file in store.files("attempts/") if attempt_number(file.key) is not None]
    records = sorted((AttemptRecord.model_validate_json(store.read(key)) for key in keys), key=lambda record: record.attempt)
    return [
        AttemptStatus(
            run=record.run,
            attempt=record.attempt,
            reason="Resumed" if record.parent else "Created",
            started_at=record.started_at,
            from_step=record.parent.step if record.parent else 0,
        )
        for record in records
    ]


def read_artifacts(store: DirectoryStore) -> Artifacts:
    """The final adapter or model; empty when there is none."""
    key = f"{FINAL_PREFIX}/{MANIFEST}"
    if not store.files(key):
        return Artifacts()
    final = FinalManifest.model_validate_json(store.read(key))
    return Artifacts(final_uri=f"{store.uri}/{FINAL_PREFIX}", kind=final.kind, source=final.source, step=final.step)


def find_failure(exit_codes: Sequence[int], messages: Sequence[TerminationMessage | None]) -> FailureStatus:
    """The cause among the pods: by the precedence of exit codes, since a lost peer is a consequence."""
    code, message = min(
        zip(exit_codes, messages, strict=True), key=lambda pod: CODE_PRECEDENCE.index(pod[0]) if pod[0] in CODE_PRECEDENCE else -1
    )
    if message is None:
        return FailureStatus(
            failure_class=FailureClass.UNKNOWN,
            message="The trainer was killed before it could say why.",
            exit_code=code,
            advice=REACTIONS[FailureClass.UNKNOWN].advice,
        )
    kind = message.failure_class or FailureClass.UNKNOWN
    return FailureStatus(
        failure_class=kind,
        message=message.message or f"The trainer ended with code {code}.",
        exit_code=code,
        failed_rank=message.failed_rank,
        last_log_lines=message.log_lines,
        advice=REACTIONS[kind].advice,
        run=message.run,
    )
