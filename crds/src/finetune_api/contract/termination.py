"""The termination message: what a trainer pod leaves behind (at most 4096 bytes, a limit of the kubelet)."""

from __future__ import annotations

from finetune_api.contract.base import ContractModel
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import CheckpointRef, UsageSeconds

MAX_MESSAGE_BYTES = 4096
MAX_LOG_BYTES = 2048


class TerminationMessage(ContractModel):
    """Why and where a pod ended. Verbs other than train put their answer into ``result``."""

    contract_version: int
    run: int
    attempt: int | None = None
    """None when the pod ended before an attempt was claimed."""
    pod: int
    exit_code: int
    failure_class: FailureClass | None = None
    message: str = ""
    """One sentence; names field, value and fix for user errors."""
    failed_rank: int | None = None
    """The rank that failed first by this pod's clock."""
    step: int | None = None
    checkpoint: CheckpointRef | None = None
    """Newest complete checkpoint known to this pod."""
    final_uri: str | None = None
    log_lines: str = ""
    """Last lines of the failed rank, at most :data:`MAX_LOG_BYTES`."""
    will_rewind: bool = False
    """Pod 0 after a divergence: the next attempt goes back to the last good checkpoint and leaves out the rows in between."""
    usage: UsageSeconds | None = None
    metrics: dict[str, float] = {}
    warnings: list[str] = []
    result: dict[str, object] | None = None
