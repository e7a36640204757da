"""Whether a checkpoint is complete within the notice a node gives before it ends, and how often to save where it is not."""

from __future__ import annotations

import math

from finetune_operator.plan.draft import Draft
from finetune_operator.plan.pause import policy_seconds
from finetune_operator.plan.retry import count_disruptions

SLOW_CHECKPOINT = "CheckpointSlowerThanNotice"
"""Warning condition."""
ASSUMED_HOURS_BETWEEN_DISRUPTIONS = 4.0
"""Until the job has seen one itself: what spot capacity of the larger GPUs gives."""


def judge_notice(draft: Draft) -> None:
    """Compare the measured time of the newest checkpoint with the notice; a condition says what does not fit."""
    save, upload = draft.report.save_seconds, draft.report.upload_seconds
    if save is None or upload is None:
        return
    written = (draft.job.spec.get("pausePolicy") or {}).get("noticeSeconds")
    notice = int(written) if written is not None else policy_seconds(draft, "graceSeconds")
    name = "noticeSeconds" if written is not None else "graceSeconds"
    if save + upload <= notice:
        draft.drop_condition(SLOW_CHECKPOINT)
        return
    minutes = suggested_minutes(save, upload, _seconds_between_disruptions(draft))
    message = (
        f"Saving and uploading a checkpoint takes {_round(save + upload)} s, a node that ends gives {notice} s (pausePolicy.{name}): what"
        f" was trained since the last complete checkpoint is lost then. Save every {minutes} minutes (checkpoint.intervalMinutes)."
    )
    draft.condition(SLOW_CHECKPOINT, "True", "Measured", message)
    draft.say(SLOW_CHECKPOINT, message, kind="Warning", key=str(draft.status.run))


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
