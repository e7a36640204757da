"""Whether a checkpoint is complete within the notice a node gives before it ends, and how often to save where it is not."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from finetune_operator.plan import conditions
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.pause import policy_seconds
from finetune_operator.plan.retry import count_disruptions

SLOW_CHECKPOINT = "CheckpointSlowerThanNotice"
"""Warning condition."""
ASSUMED_HOURS_BETWEEN_DISRUPTIONS = 4.0
"""Until the job has seen one itself: what spot capacity of the larger GPUs gives."""


class Taken(NamedTuple):
    """How long a checkpoint takes to be complete."""

    save: float
    """Seconds."""
    upload: float
    """Seconds."""
    reason: Literal["Measured", "Estimated"]
    said: str
    """Between "a checkpoint" and the number of seconds."""


def judge_notice(draft: Draft) -> None:
    """Compare the time of a checkpoint with the notice; a condition says what does not fit.

    The newest checkpoint's time counts as it was measured; until there is one, as preflight estimated it.
    """
    taken = _measured(draft) or _estimated(draft)
    if taken is None:
        return
    written = (draft.job.spec.get("pausePolicy") or {}).get("noticeSeconds")
    notice = int(written) if written is not None else policy_seconds(draft, "graceSeconds")
    name = "noticeSeconds" if written is not None else "graceSeconds"
    if taken.save + taken.upload <= notice:
        draft.drop_condition(SLOW_CHECKPOINT)
        return
    minutes = suggested_minutes(taken.save, taken.upload, _seconds_between_disruptions(draft))
    message = (
        f"Saving and uploading a checkpoint {taken.said} {_round(taken.save + taken.upload)} s, a node that ends gives {notice} s"
        f" (pausePolicy.{name}): what was trained since the last complete checkpoint is lost then. Save every {minutes} minutes"
        " (checkpoint.intervalMinutes)."
    )
    before = conditions.find(draft.status.conditions, SLOW_CHECKPOINT)
    draft.condition(SLOW_CHECKPOINT, "True", taken.reason, message)
    if before is None or before.message != message:
        draft.say(SLOW_CHECKPOINT, message, kind="Warning", key=str(draft.status.run) if taken.reason == "Measured" else taken.reason)


def _measured(draft: Draft) -> Taken | None:
    save, upload = draft.report.save_seconds, draft.report.upload_seconds
    return Taken(save, upload, "Measured", "takes") if save is not None and upload is not None else None


def _estimated(draft: Draft) -> Taken | None:
    """None once there is a checkpoint: what was said of its time stands until the next is measured."""
    estimate = draft.status.estimate.checkpoint if draft.status.estimate is not None else None
    if estimate is None or draft.status.checkpoints.latest is not None:
        return None
    said = f"of {estimate.size_bytes / 1e6:,.1f} MB at {estimate.upload_bytes_per_second / 1e6:,.1f} MB/s is estimated to take"
    return Taken(estimate.save_seconds, estimate.upload_seconds, "Estimated", said)


def suggested_minutes(save: float, upload: float, between_disruptions: float) -> int:
    """Minutes between saves that cost least in all: sqrt(2 x time a save takes x time between disruptions).

    J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974.
    Never below the time a checkpoint takes to be complete, else saves would pile up. All arguments in seconds.
    """
    best = math.sqrt(2 * max(save, 0.1) * between_disruptions)
    return min(1440, max(1, math.ceil(max(best, save + upload) / 60)))


def _seconds_between_disruptions(draft: Draft) -> float:
    disruptions = count_disruptions(draft.status.attempts)
    if not disruptions:
        return ASSUMED_HOURS_BETWEEN_DISRUPTIONS * 3600
    return max(600.0, draft.status.usage.active_seconds / disruptions)


def _round(seconds: float) -> int:
    """Two digits: a message that changes with every save would be written with every save."""
    digits = max(0, len(str(int(seconds))) - 2)
    return int(round(seconds, -digits)) or 1
