"""What the user wants now. Order: Cancelled > Stopped > suspend > replicas 0 > Running."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from finetune_api.constants import ANNOTATION_REQUEST
from finetune_operator.plan.observed import JobObject


class Desire(StrEnum):
    """What the job shall come to."""

    RUN = "Run"
    PAUSE = "Pause"
    STOP = "Stop"
    CANCEL = "Cancel"


def desire_of(job: JobObject) -> Desire:
    """Read the levers in their order."""
    state = job.spec.get("desiredState", "Running")
    if state != "Running":
        return Desire.CANCEL if state == "Cancelled" else Desire.STOP
    paused = job.spec.get("suspend", False) or job.spec.get("replicas", 1) == 0
    return Desire.PAUSE if paused else Desire.RUN


class Request(NamedTuple):
    """The request annotation: ``<verb>/<token>``."""

    verb: str
    text: str
    """The whole value: what status.lastHandledRequest records."""


VERBS = ("resume", "retry", "checkpoint")


def open_request(job: JobObject) -> Request | None:
    """A request that was not acted on yet."""
    return request_in(job.annotations, job.status.last_handled_request)


def request_in(annotations: Mapping[str, str], handled: str | None) -> Request | None:
    """The request in a job's annotations, unless it is the one handled last."""
    text = annotations.get(ANNOTATION_REQUEST, "")[:256]
    if not text or text == handled:
        return None
    return Request(text.partition("/")[0], text)
