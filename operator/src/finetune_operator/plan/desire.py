"""What is wanted now. Order: Cancelled > Stopped > suspend > replicas 0 > a hold of the operator (limits) > Running."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from finetune_api.constants import ANNOTATION_REQUEST
from finetune_api.models.status import HoldStatus
from finetune_operator.plan.observed import JobObject


class Desire(StrEnum):
    """What the job shall come to."""

    RUN = "Run"
    PAUSE = "Pause"
    STOP = "Stop"
    CANCEL = "Cancel"


def desire_of(job: JobObject) -> Desire:
    """What the job as read wants."""
    return wanted(job.spec, job.status.hold)


def wanted(spec: Mapping[str, Any], hold: HoldStatus | None) -> Desire:
    """Read the levers in their order; a hold is a pause that the spec does not know of."""
    state = spec.get("desiredState", "Running")
    if state != "Running":
        return Desire.CANCEL if state == "Cancelled" else Desire.STOP
    paused = spec.get("suspend", False) or spec.get("replicas", 1) == 0 or hold is not None
    return Desire.PAUSE if paused else Desire.RUN


class Request(NamedTuple):
    """The request annotation: ``<verb>/<token>``."""

    verb: str
    text: str
    """The whole value: what status.lastHandledRequest records."""


VERBS = ("resume", "retry", "checkpoint", "approve")


def open_request(job: JobObject) -> Request | None:
    """A request that was not acted on yet."""
    return request_in(job.annotations, job.status.last_handled_request)


def request_in(annotations: Mapping[str, str], handled: str | None) -> Request | None:
    """The request in a job's annotations, unless it is the one handled last."""
    text = annotations.get(ANNOTATION_REQUEST, "")[:256]
    if not text or text == handled:
        return None
    return Request(text.partition("/")[0], text)
