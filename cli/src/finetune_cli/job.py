"""A FineTuneJob as the commands see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune_api.models.status import Condition, ConditionType, FineTuneJobStatus, Phase
from finetune_cli.errors import CliError


@dataclass(frozen=True, slots=True)
class JobRef:
    """Which job is meant."""

    name: str
    namespace: str

    def __str__(self) -> str:
        return f"finetunejob/{self.name} in namespace {self.namespace}"


@dataclass(frozen=True, slots=True)
class Job:
    """One observation of a job."""

    ref: JobRef
    uid: str
    generation: int
    created_at: str
    """RFC 3339."""
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    """As the user wrote it (camelCase), with the few defaults of the API server."""
    status: FineTuneJobStatus

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Job:
        """Read an object of the API server.

        Raises:
            CliError: the status was written by an operator this client does not understand.
        """
        metadata = document["metadata"]
        ref = JobRef(metadata["name"], metadata["namespace"])
        try:
            status = FineTuneJobStatus.model_validate(document.get("status", {}))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            advice = "Is the operator newer than this client? Update kubectl-finetune."
            raise CliError(f"the status of {ref} cannot be read: {reason}", advice=advice) from error
        return cls(
            ref=ref,
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            created_at=metadata.get("creationTimestamp", ""),
            annotations=metadata.get("annotations") or {},
            spec=document.get("spec", {}),
            status=status,
        )

    @property
    def phase(self) -> Phase:
        """Where the job is."""
        return self.status.phase

    @property
    def is_current(self) -> bool:
        """Whether the operator has seen the newest spec; before that, the status speaks of the one before."""
        return self.status.observed_generation >= self.generation

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of a type, if it was ever set."""
        return next((condition for condition in self.status.conditions if condition.type == kind), None)


def where_it_is(job: Job) -> str:
    """Phase, reason and the Ready condition's message in one line."""
    ready = job.condition(ConditionType.READY)
    message = f": {ready.message}" if ready and ready.message else ""
    return f"phase {job.phase} ({job.status.reason or 'no reason given'}){message}"
