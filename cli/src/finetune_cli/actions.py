"""What pause, resume, stop, cancel, retry, export and checkpoint change in a job: merge patches, built without touching the cluster.

The operator never writes ``spec``; these commands do it in the user's name, as ``kubectl edit`` would.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from finetune_api.constants import ANNOTATION_PROMOTED, ANNOTATION_REQUEST
from finetune_api.defaults import BASE
from finetune_api.exports import exports
from finetune_api.models.status import FINAL_PHASES, CheckpointStatus, Phase
from finetune_api.resolve import flatten, unflatten
from finetune_cli.errors import CliError
from finetune_cli.job import Job

Patch = dict[str, Any]


class ExportFormat(StrEnum):
    """A form of the result that an export can make beside those the spec names."""

    MERGED = "merged"
    GGUF = "gguf"


SWITCH: Final[Mapping[ExportFormat, str]] = {ExportFormat.MERGED: "output.merge", ExportFormat.GGUF: "output.export.gguf.enabled"}
"""Format -> field that asks for it."""
DECISIVE: Final = ("adapter.type", *SWITCH.values(), "output.push.enabled")
"""Fields that decide whether there is anything to export."""


def build_pause(job: Job) -> Patch:
    """``spec.suspend: true``: the pause that also outlives the next apply of the manifest, if it is written there too."""
    _refuse_final(job, "paused")
    _refuse_failed(job)
    return {"spec": {"suspend": True}}


def build_resume(job: Job, token: str, resume_from: str | None = None) -> Patch:
    """Take away whatever holds the job: suspend, zero replicas, a stop, a pause by a limit. ``resume_from``: start at that checkpoint."""
    _refuse_final(job, "resumed")
    _refuse_failed(job)
    spec: Patch = {"checkpoint": {"resumeFrom": resume_from}} if resume_from is not None else {}
    if job.spec.get("suspend", False):
        spec["suspend"] = False
    if job.spec.get("replicas") == 0:
        spec["replicas"] = job.status.last_replicas or 1
    if job.spec.get("desiredState", "Running") == "Stopped":
        spec["desiredState"] = "Running"
    held = job.status.hold is not None
    rests = job.phase in {Phase.PAUSED, Phase.STOPPED}
    if not held and not rests and set(spec) <= {"checkpoint"}:
        raise CliError(f"nothing holds {job.ref}: its phase is {job.phase}")
    patch: Patch = {"spec": spec} if spec else {}
    return patch | (_request("resume", token) if held or not spec else {})


def build_promote(job: Job, name: str) -> Patch:
    """Keep what a cancelled job wrote beyond ``output.retentionDays``; ``name`` says what it became."""
    if job.phase is not Phase.CANCELLED:
        raise CliError(f"only what a cancelled job wrote is removed after a time; the phase of {job.ref} is {job.phase}")
    if job.status.artifacts_removed_at is not None:
        raise CliError(f"what {job.ref} wrote was removed at {job.status.artifacts_removed_at}")
    return {"metadata": {"annotations": {ANNOTATION_PROMOTED: name}}}


def checkpoint_uri(other: Job, step: int | None) -> str:
    """Address of a checkpoint of another job: the newest, or the one of a step.

    Raises:
        CliError: it is not known; the message names those that are.
    """
    ledger, known = other.status.checkpoints, known_checkpoints(other)
    found = ledger.latest if step is None else known.get(step)
    if found is None or not found.resumable:
        steps = ", ".join(f"checkpoint-{number}" for number in sorted(known)) or "none"
        raise CliError(f"{other.ref} has no resumable {'checkpoint' if step is None else f'checkpoint-{step}'}; its status knows {steps}")
    return found.uri


def known_checkpoints(job: Job) -> dict[int, CheckpointStatus]:
    """Checkpoints that training can go on from, as far as the status knows them, by step."""
    ledger = job.status.checkpoints
    return {found.step: found for found in (*ledger.recent, *filter(None, (ledger.best, ledger.latest))) if found.resumable}


def build_stop(job: Job) -> Patch:
    """``spec.desiredState: Stopped``: a pause whose spec may be edited."""
    _refuse_final(job, "stopped")
    _refuse_failed(job)
    return {"spec": {"desiredState": "Stopped"}}


def build_cancel(job: Job) -> Patch:
    """``spec.desiredState: Cancelled``, which can never be left."""
    _refuse_final(job, "cancelled")
    return {"spec": {"desiredState": "Cancelled"}}


def build_retry(job: Job, token: str) -> Patch:
    """Ask for another start of a failed job, or another export of one that has succeeded."""
    if job.phase not in {Phase.FAILED, Phase.SUCCEEDED}:
        raise CliError(f"only a failed job, or the export of one that has succeeded, can be retried; the phase of {job.ref} is {job.phase}")
    return _request("retry", token)


def build_approve(job: Job, token: str) -> Patch:
    """Approve what a job that waits for it may cost."""
    if job.phase is not Phase.AWAITING_APPROVAL:
        raise CliError(f"only a job in phase {Phase.AWAITING_APPROVAL} can be approved; the phase of {job.ref} is {job.phase}")
    return _request("approve", token)


def build_export(job: Job, token: str, formats: Collection[ExportFormat] = ()) -> Patch:
    """Ask for the outputs of a job that has succeeded; what is complete in the store is not made again. ``formats``: set in the spec too.

    Raises:
        CliError: the job has not succeeded, an export is under way, or nothing is to be exported.
    """
    if job.phase is Phase.EXPORTING or (job.status.export is not None and job.status.export.state == "Open"):
        raise CliError(f"an export of {job.ref} is under way")
    if job.phase is not Phase.SUCCEEDED:
        raise CliError(f"only the result of a job that has succeeded can be exported; the phase of {job.ref} is {job.phase}")
    asked = {SWITCH[each]: True for each in formats}
    values = {path: _value(job, path) for path in DECISIVE} | asked
    if not exports(values):
        said = ", ".join(f"{path} {value if isinstance(value, str) else json.dumps(value)}" for path, value in values.items())
        ways = "--format gguf" if values["adapter.type"] == "full" else "--format merged, --format gguf"
        whole = "; a merge adds nothing to the whole model that adapter.type full leaves" if values["output.merge"] else ""
        raise CliError(f"nothing of {job.ref} is to be exported: {said}", advice=f"Ask for {ways}, or set output.push in the spec{whole}.")
    return ({"spec": unflatten(asked)} if asked else {}) | _request("retry", token)


def _value(job: Job, path: str) -> Any:
    """A field as the job writes it, else as it was resolved, else its default."""
    written, resolved = flatten(job.spec).get(path), job.status.resolved.get(path)
    if written is not None or resolved is None:
        return BASE[path] if written is None else written
    return resolved.value if isinstance(BASE[path], str) else json.loads(resolved.value)


def build_checkpoint(job: Job, token: str) -> Patch:
    """Ask for a checkpoint at the next step, without a pause."""
    if job.phase not in {Phase.TRAINING, Phase.EVALUATING}:
        raise CliError(f"a checkpoint can be asked for while a job trains; the phase of {job.ref} is {job.phase}")
    return _request("checkpoint", token)


def request_of(patch: Patch) -> str | None:
    """The request a patch makes, as it will show in ``status.lastHandledRequest``."""
    request: str | None = patch.get("metadata", {}).get("annotations", {}).get(ANNOTATION_REQUEST)
    return request


def _request(verb: str, token: str) -> Patch:
    return {"metadata": {"annotations": {ANNOTATION_REQUEST: f"{verb}/{token}"}}}


def _refuse_final(job: Job, participle: str) -> None:
    if job.phase in FINAL_PHASES:
        raise CliError(
            f"{job.ref} can no longer be {participle}: it is {job.phase}, which is final", advice="Create it anew under another name."
        )


def _refuse_failed(job: Job) -> None:
    if job.phase is Phase.FAILED:
        retry = f"kubectl finetune retry {job.ref.name} -n {job.ref.namespace}"
        raise CliError(f"{job.ref} has failed; a failed job goes on by a retry only", advice=retry)
