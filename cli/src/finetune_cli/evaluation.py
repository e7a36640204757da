"""Evaluating a checkpoint once more: a job of its own that goes on from it, finds nothing left to train, and evaluates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from finetune_api.constants import API_VERSION, KIND, MAX_JOB_NAME
from finetune_api.models.partial import PresetInput
from finetune_api.models.status import CheckpointStatus
from finetune_api.resolve import flatten, unflatten
from finetune_api.schema import structural
from finetune_cli.actions import known_checkpoints
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.serving import SHOWN

Manifest = dict[str, Any]


def choose_checkpoints(job: Job, steps: list[int]) -> list[CheckpointStatus]:
    """The checkpoints of some steps, or all that can be resumed, oldest first.

    Raises:
        CliError: one is not known, or only its weights are left; the message names those that are.
    """
    known = known_checkpoints(job)
    missing = [step for step in steps if step not in known]
    if missing or not known:
        names = ", ".join(f"checkpoint-{step}" for step in sorted(known)) or "none"
        wanted = f"checkpoint-{missing[0]}" if missing else "checkpoint"
        raise CliError(f"{job.ref} has no resumable {wanted}; its status knows {names}")
    return [known[step] for step in sorted(steps or known)]


def build_evaluation(job: Job, checkpoint: CheckpointStatus, eval_uri: str | None) -> Manifest:
    """A FineTuneJob that evaluates a checkpoint of a job, on its own evaluation rows or on those of ``eval_uri``.

    Its ``status.artifacts.evalLoss`` is the result. Objects it writes go when it is deleted.

    Raises:
        CliError: there are no rows to evaluate on.
    """
    left_out = {"suspend", "desiredState", "displayName", "presetRef", "skillLevel"}
    spec = {key: value for key, value in _with_preset(job).items() if key not in left_out}
    spec["dataset"] = _dataset_as_trained(job, spec["dataset"])
    if eval_uri is not None:
        spec["dataset"] = {**spec["dataset"], "evalUri": eval_uri, "evalRatio": 0}
    elif not _evaluates(job, spec["dataset"]):
        raise CliError(
            f"{job.ref} has no evaluation data",
            advice="Name some with --eval-uri: rows in the form of dataset.uri, of which none is split off.",
        )
    spec["replicas"] = job.spec.get("replicas") or job.status.last_replicas or 1
    spec["checkpoint"] = _without(spec.get("checkpoint", {}), "steps", "intervalMinutes") | {"strategy": "no", "resumeFrom": checkpoint.uri}
    spec["training"] = {**spec.get("training", {}), "maxSteps": checkpoint.step, "maxStepsMode": "override"}
    spec["evaluation"] = _without(spec.get("evaluation", {}), "steps") | {"strategy": "no", "final": True}
    spec["earlyStopping"] = {"patience": 0}
    spec["output"] = {"retain": "Delete", "merge": False, "export": {"gguf": {"enabled": False}, "samples": 0}, "push": {"enabled": False}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": _name(job, checkpoint, eval_uri), "namespace": job.ref.namespace},
        "spec": spec,
    }


def _with_preset(job: Job) -> Manifest:
    """The job's spec, with what its preset said when the job ran: the preset may have changed, and auto goes by what a Dataset says."""
    if "presetRef" not in job.spec:
        return dict(job.spec)
    schema = structural(PresetInput, lambda *_: "")
    said = {path: _read(job, path, entry.value, schema) for path, entry in job.status.resolved.items() if entry.source == "preset"}
    return unflatten({**said, **flatten(job.spec)})


def _read(job: Job, path: str, text: str, schema: Mapping[str, Any]) -> Any:
    """A value as ``status.resolved`` has it: JSON where its field is no string.

    Raises:
        CliError: the status has only its beginning.
    """
    if len(text) >= SHOWN or text.endswith("…"):
        raise CliError(f"{job.ref}: {path} of its preset is too long for the status", advice=f"Write {path} into the job's spec.")
    node: Mapping[str, Any] = schema
    for name in path.split("."):
        node = node.get("properties", {}).get(name, {})
    return text if node.get("type", "string") == "string" else json.loads(text)


def _dataset_as_trained(job: Job, dataset: Manifest) -> Manifest:
    """The job's block dataset; what a Dataset stood for when the job first ran takes the place of its name."""
    if not str(dataset["uri"]).startswith("ref:"):
        return dataset
    said = {path: entry.value for path, entry in job.status.resolved.items() if entry.source == "dataset"}
    if "dataset.uri" not in said:
        raise CliError(f"{job.ref} has not run yet: what {dataset['uri']} stands for is not known")
    tree = unflatten({path: value for path, value in said.items() if path.startswith("dataset.")})
    return {**dataset, **tree["dataset"]}


def _evaluates(job: Job, dataset: Mapping[str, Any]) -> bool:
    resolved = job.status.resolved.get("dataset.evalRatio")
    ratio = dataset.get("evalRatio", resolved.value if resolved is not None else 0)
    return bool(dataset.get("evalUri")) or float(ratio) > 0


def _name(job: Job, checkpoint: CheckpointStatus, eval_uri: str | None) -> str:
    """The same for the same question, so that it is asked once."""
    asked = hashlib.sha256("\n".join((job.uid, checkpoint.uri, eval_uri or "")).encode()).hexdigest()[:6]
    end = f"-eval-{checkpoint.step}-{asked}"
    return job.ref.name[: MAX_JOB_NAME - len(end)].rstrip("-.") + end


def _without(block: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key not in names}
