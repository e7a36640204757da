"""The state machine of a FineTuneJob: every phase, and every way from one to another, in one table.

The operator's decisions keep to it, a property test holds them to it, and ``docs/reference/lifecycle.md`` is made from it. A phase is what
an observer of the status sees: where the operator was away, or two things happened between two looks, a way may skip phases in between.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from finetune_api.models.status import Phase


class Health(StrEnum):
    """What kstatus, and with it Flux, Argo CD and helm --wait, make of a phase."""

    CURRENT = "Current"
    """Ready=True: what was asked for is so, or the operator waits for someone else (a queue, the user)."""
    IN_PROGRESS = "InProgress"
    """Reconciling=True: the operator itself acts."""
    FAILED = "Failed"
    """Stalled=True: only the user can mend it."""


class PhaseRow(NamedTuple):
    """One phase."""

    health: Health
    meaning: str
    holds_pods: bool = False
    """Pods of the job may exist."""
    pause: str = ""
    """What a pause does here (OP-09)."""


class Transition(NamedTuple):
    """One way a job may go."""

    before: Phase
    after: Phase
    why: str


_P = Phase
_LEFT_AT_ONCE = "no pod, nothing to save: Paused at once"
_ASKED = "the trainer saves, the pods go when the checkpoint is complete in the store"

PHASES: dict[Phase, PhaseRow] = {
    _P.PENDING: PhaseRow(Health.FAILED, "the spec cannot be run; the condition Valid says why", pause=_LEFT_AT_ONCE),
    _P.VALIDATING: PhaseRow(Health.IN_PROGRESS, "a GPU-free preflight looks at data, secrets, bucket and model", pause=_LEFT_AT_ONCE),
    _P.AWAITING_APPROVAL: PhaseRow(
        Health.CURRENT, "it may cost more than the Budget lets start by itself; kubectl finetune approve", pause=_LEFT_AT_ONCE
    ),
    _P.AWAITING_BALANCE: PhaseRow(
        Health.CURRENT, "the Budget has less left than the job may cost or write; kubectl finetune topup", pause=_LEFT_AT_ONCE
    ),
    _P.QUEUED: PhaseRow(
        Health.CURRENT, "no node or no quota is free; nothing is held", holds_pods=True, pause="no container runs: the pods go at once"
    ),
    _P.STARTING: PhaseRow(
        Health.IN_PROGRESS,
        "pods start, fetch model and data; or a run failed and the next follows",
        holds_pods=True,
        pause="nothing is trained: the pods go at once",
    ),
    _P.TRAINING: PhaseRow(Health.CURRENT, "optimizer steps are made", holds_pods=True, pause=_ASKED),
    _P.EVALUATING: PhaseRow(
        Health.CURRENT, "the evaluation set is run", holds_pods=True, pause=f"{_ASKED}; the evaluation is caught up first on resume"
    ),
    _P.EXPORTING: PhaseRow(
        Health.CURRENT,
        "training is done; its result is written",
        holds_pods=True,
        pause="it is finished: a stop at the last step is a finish",
    ),
    _P.PAUSING: PhaseRow(
        Health.IN_PROGRESS, "the trainer was asked to save; its pods are kept until it has", holds_pods=True, pause="already under way"
    ),
    _P.PAUSED: PhaseRow(Health.CURRENT, "no pods; resumable. Reason UserRequested, LimitReached or BalanceExhausted", pause="already so"),
    _P.RESUMING: PhaseRow(
        Health.IN_PROGRESS, "as Starting, after a pause", holds_pods=True, pause="nothing new is trained: the pods go at once"
    ),
    _P.STOPPING: PhaseRow(
        Health.IN_PROGRESS,
        "as Pausing, on the way to Stopped or Cancelled",
        holds_pods=True,
        pause="goes on; then Paused or Stopped as asked",
    ),
    _P.STOPPED: PhaseRow(
        Health.CURRENT, "no pods; the spec may be edited, desiredState Running goes on", pause="Paused once it runs again"
    ),
    _P.CANCELLED: PhaseRow(Health.CURRENT, "final; what it wrote is kept for output.retentionDays", pause="no effect"),
    _P.FAILED: PhaseRow(Health.FAILED, "status.failure says why; the request retry goes on", pause="kept until a retry"),
    _P.SUCCEEDED: PhaseRow(Health.CURRENT, "final; status.artifacts names the result", pause="no effect"),
}


def _ways(before: Phase | tuple[Phase, ...], after: Phase | tuple[Phase, ...], why: str) -> list[Transition]:
    sources = before if isinstance(before, tuple) else (before,)
    targets = after if isinstance(after, tuple) else (after,)
    return [Transition(one, other, why) for one in sources for other in targets if one is not other]


_AWAITING = (_P.AWAITING_APPROVAL, _P.AWAITING_BALANCE)
_BEFORE_PODS = (_P.PENDING, _P.VALIDATING, *_AWAITING)
_WITH_PODS = (_P.QUEUED, _P.STARTING, _P.RESUMING, _P.TRAINING, _P.EVALUATING, _P.EXPORTING)
_AT_WORK = (_P.TRAINING, _P.EVALUATING, _P.EXPORTING)
_ENDING = (_P.PAUSING, _P.STOPPING)
_RESTING = (_P.PAUSED, _P.STOPPED)

TRANSITIONS: tuple[Transition, ...] = (
    # before the first pod
    *_ways(_P.PENDING, _P.VALIDATING, "the spec can be run; a preflight looks at the rest"),
    *_ways(_P.PENDING, _P.STARTING, "the spec can be run; a run was created"),
    *_ways(_P.PENDING, _P.RESUMING, "the edit was mended; the run after a pause was created"),
    *_ways(_P.VALIDATING, _P.STARTING, "the preflight passed; a run was created"),
    *_ways(_P.VALIDATING, _P.RESUMING, "the preflight passed; the run after a pause was created"),
    *_ways((_P.VALIDATING, _P.STARTING, _P.RESUMING, *_AWAITING, *_RESTING), _P.PENDING, "the spec cannot be run (any more)"),
    *_ways(
        (_P.PENDING, _P.VALIDATING, _P.STARTING, _P.RESUMING, *_RESTING, _P.FAILED, *_ENDING, _P.AWAITING_BALANCE),
        _P.AWAITING_APPROVAL,
        "what it may cost needs approval",
    ),
    *_ways(
        (_P.PENDING, _P.VALIDATING, _P.STARTING, _P.RESUMING, *_RESTING, _P.FAILED, *_ENDING, _P.AWAITING_APPROVAL),
        _P.AWAITING_BALANCE,
        "the Budget is asked for what it may cost and write",
    ),
    *_ways(_AWAITING, _P.VALIDATING, "what was checked has changed"),
    *_ways(_AWAITING, (_P.STARTING, _P.RESUMING), "the Budget has it, or is gone; a run was created"),
    *_ways((_P.STARTING, _P.RESUMING, *_RESTING), _P.VALIDATING, "the next run is checked before GPUs are asked for"),
    *_ways(_P.VALIDATING, _P.FAILED, "the preflight found what no retry mends"),
    # a run
    *_ways((_P.STARTING, _P.RESUMING, *_AT_WORK), _P.QUEUED, "no node fits, or the queue has no quota"),
    *_ways(_P.QUEUED, (_P.STARTING, _P.RESUMING), "nodes or quota were found, or the next run follows a failed one"),
    *_ways((_P.QUEUED, _P.STARTING, _P.RESUMING, _P.EVALUATING), _P.TRAINING, "the trainer makes steps"),
    *_ways((_P.QUEUED, _P.STARTING, _P.RESUMING, _P.TRAINING), _P.EVALUATING, "the trainer evaluates"),
    *_ways((_P.QUEUED, _P.STARTING, _P.RESUMING, _P.TRAINING, _P.EVALUATING), _P.EXPORTING, "training is done"),
    *_ways((*_WITH_PODS, *_ENDING), _P.SUCCEEDED, "all ranks finished; the result is complete in the store"),
    # failures
    *_ways((*_AT_WORK, _P.RESUMING), _P.STARTING, "the run ended by itself; the next one follows after the back-off"),
    *_ways((*_WITH_PODS, *_ENDING), _P.FAILED, "a failure that no retry mends, or the retry budget is used up"),
    *_ways(_P.FAILED, (_P.VALIDATING, _P.STARTING, _P.PENDING), "request retry"),
    # giving up the pods
    *_ways((*_WITH_PODS, _P.STOPPING), _P.PAUSING, "suspend, replicas 0, or a limit or the balance was reached"),
    *_ways((*_WITH_PODS, _P.PAUSING), _P.STOPPING, "desiredState Stopped or Cancelled"),
    *_ways(_P.FAILED, _P.STOPPING, "desiredState Cancelled; what the failed run left is removed"),
    *_ways(_ENDING, _P.PAUSED, "the last pod is gone; a pause is wanted"),
    *_ways(_ENDING, _P.STOPPED, "the last pod is gone; desiredState Stopped"),
    *_ways(
        (*_ENDING, *_BEFORE_PODS, _P.STARTING, _P.RESUMING, *_RESTING, _P.FAILED), _P.CANCELLED, "no pod is left; desiredState Cancelled"
    ),
    *_ways(
        _ENDING,
        (_P.RESUMING, _P.STARTING, _P.VALIDATING, _P.PENDING),
        "the pause was taken back while it was carried out, or the run ended otherwise first",
    ),
    # without pods
    *_ways(
        (*_BEFORE_PODS, _P.STARTING, _P.RESUMING, _P.STOPPED, _P.FAILED),
        _P.PAUSED,
        "suspend, replicas 0, or a limit or the balance was reached; there are no pods",
    ),
    *_ways((*_BEFORE_PODS, _P.STARTING, _P.RESUMING, _P.PAUSED, _P.FAILED), _P.STOPPED, "desiredState Stopped; there are no pods"),
    *_ways(
        (_P.QUEUED, *_AT_WORK), (*_RESTING, _P.CANCELLED), "asked for while the Job was deleted from outside: nothing is left to give up"
    ),
    *_ways(_RESTING, (_P.RESUMING, _P.STARTING), "the pause ended; the next run was created"),
)

_PAIRS = frozenset((way.before, way.after) for way in TRANSITIONS)


def may_follow(before: Phase, after: Phase) -> bool:
    """Whether a job may be seen in one phase and next in the other."""
    return before == after or (before, after) in _PAIRS
