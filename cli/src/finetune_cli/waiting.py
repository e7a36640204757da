"""Whether the operator has done what a command asked for."""

from __future__ import annotations

from typing import Final

from finetune_api.models.status import ConditionType, Phase
from finetune_cli.actions import Patch, request_of
from finetune_cli.errors import CliError
from finetune_cli.job import Job

UNDER_WAY: Final = frozenset({Phase.STARTING, Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.SUCCEEDED})
"""What a resume or retry leads to."""


class PhaseReached:
    """Done when the operator has taken the patch up and the job is in one of the phases."""

    def __init__(self, before: Job, patched: Job, patch: Patch, phases: frozenset[Phase]) -> None:
        self._failed_before = before.phase is Phase.FAILED
        self._patched = patched
        self._request = request_of(patch)
        self._phases = phases

    def __call__(self, job: Job) -> bool:
        """Judge one observation.

        Raises:
            CliError: the job failed instead. A failure from before the command counts only after the job had left it.
        """
        if job.phase is not Phase.FAILED:
            self._failed_before = False
        elif not self._failed_before and job.status.failure is not None:
            raise CliError(f"{job.ref} failed: {job.status.failure.message}", advice=job.status.failure.advice)
        return self._is_taken_up(job) and job.phase in self._phases

    def _is_taken_up(self, job: Job) -> bool:
        if self._request is not None:
            return job.status.last_handled_request == self._request
        return job.generation >= self._patched.generation and job.is_current


class CheckpointTaken:
    """Done when there is a checkpoint that was not there before and was made for a request."""

    def __init__(self, before: Job) -> None:
        latest = before.status.checkpoints.latest
        self._before = (latest.attempt, latest.step) if latest else None

    def __call__(self, job: Job) -> bool:
        """Judge one observation.

        Raises:
            CliError: the job ended or was paused first.
        """
        recent = job.status.checkpoints.recent or [found for found in (job.status.checkpoints.latest,) if found]
        if any(found.trigger == "command" and (self._before is None or (found.attempt, found.step) > self._before) for found in recent):
            return True
        if job.phase not in {Phase.TRAINING, Phase.EVALUATING}:
            raise CliError(f"{job.ref} stopped training before the checkpoint was taken: its phase is {job.phase}")
        return False


class ExportEnded:
    """Done when the export that a patch asked for has made everything."""

    def __init__(self, before: Job, patch: Patch) -> None:
        self._before = before.status.export.serial if before.status.export is not None else 0
        self._request = request_of(patch)

    def __call__(self, job: Job) -> bool:
        """Judge one observation.

        Raises:
            CliError: the operator refused, or the export failed for good.
        """
        export = job.status.export
        if job.status.last_handled_request != self._request:
            return False
        if export is None or export.serial <= self._before:
            events = f"kubectl events -n {job.ref.namespace} --for finetunejob/{job.ref.name}"
            raise CliError(f"the operator did not take up the export of {job.ref}", advice=f"The event RequestIgnored says why: {events}.")
        if export.state == "Failed":
            failed = job.condition(ConditionType.EXPORT_FAILED)
            raise CliError(f"the export of {job.ref} failed", advice=f"{failed.reason}: {failed.message}" if failed is not None else "")
        return export.state == "Done"
