"""How a job gives up its pods, what it may use in all, and what follows a failure. These belong to one job; no preset may set them."""

from __future__ import annotations

from typing import Literal

from finetune_api.models.base import ApiModel, api_field


class PausePolicy(ApiModel):
    """How a pause, stop or cancel gives up its pods."""

    timeout_seconds: int = api_field(ge=10, le=86400, unit="seconds", schema_default=600, requirement="Q-11")
    """How long to wait for the checkpoint of a pause to be complete in the store."""
    if_unsaved: Literal["Wait", "Discard"] = api_field(schema_default="Wait", requirement="Q-11")
    """After the timeout: Wait keeps the pods until the checkpoint is complete, Discard gives them up and says how many steps are lost."""
    grace_seconds: int = api_field(ge=10, le=3600, unit="seconds", schema_default=120, requirement="Q-11")
    """terminationGracePeriodSeconds of the pods: time to save on drain, preemption and forced deletion."""
    notice_seconds: int | None = api_field(default=None, ge=1, le=3600, unit="seconds", requirement="Q-11 OP-11")
    """How long before its end a node says so (spot: 30 to 120). Saving and uploading, as preflight estimates and the first checkpoint
    measures it, is compared with it; a save interval is suggested where it does not fit. Unset: graceSeconds."""


class Limits(ApiModel):
    """What the job may use in all, pauses not counted. At a limit it is paused with a checkpoint; raise the limit and request resume."""

    max_active_seconds: int | None = api_field(default=None, ge=60, le=31536000, unit="seconds", requirement="O-11 OP-12")
    """Seconds its pods may be at work, over all attempts."""
    max_gpu_hours: float | None = api_field(default=None, ge=0.01, le=1000000, unit="GPU hours", requirement="O-11 OP-12")
    """Hours times GPUs, over all attempts; on cpu: times ranks."""


class Retry(ApiModel):
    """What happens after a failure of the infrastructure; user errors are never retried."""

    limit: int = api_field(ge=0, le=100, schema_default=3, requirement="OP-11")
    """Restarts without a new checkpoint in between; a new checkpoint sets the count back. Drains and preemptions are not counted."""
    backoff_seconds: int = api_field(ge=1, le=3600, unit="seconds", schema_default=10, requirement="OP-11")
    """Wait before the first restart; doubles each time, at most 5 minutes."""
    on_divergence: Literal["fail", "rewind"] = api_field(schema_default="fail", requirement="F-13")
    """When loss, gradient or weights are no longer finite, or the loss of sft or pretrain stays above twice its best level and by more
    than 3 for 150 steps and does not fall: fail ends the job with class LossDiverged. rewind goes back to the last checkpoint from before
    that, leaves out the rows trained since and halves the learning rate, at most twice; it is said in the condition LossRewound."""
    on_stall: Literal["report", "restart"] = api_field(schema_default="restart", requirement="OP-11")
    """When a rank makes no headway for too long: report writes every rank's stack to the log and sets the condition TrainingStalled,
    restart also ends the run with class Stalled, so that the next one goes on from the last checkpoint."""
    stall_seconds: int = api_field(ge=10, le=86400, unit="seconds", schema_default=900, requirement="OP-11")
    """How long training and evaluation may go without a micro-batch, and generation without a token. Phases without computation
    (download, preparing, loading, saving) have 1800 seconds, or this if it is longer."""
