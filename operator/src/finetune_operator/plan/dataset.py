"""``plan_dataset``: from what exists of a Dataset to what must change. Pure and total.

One look at a time: its Job is made, its answer goes into the status, and then the Job goes. A look is due when the part of the spec
that says what the data is was never looked at, and when somebody asks for one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from finetune_api.contract.failures import REACTIONS, FailureClass, Retry
from finetune_api.contract.look import LookResult
from finetune_api.contract.preflight import DatasetFacts
from finetune_api.models.dataset import DatasetPhase, DatasetStatus, DatasetTokens
from finetune_api.models.partial import validate_dataset
from finetune_api.models.status import Condition, ConditionType
from finetune_api.problems import SpecError
from finetune_operator.plan import conditions
from finetune_operator.plan.dataset_look import build_look, build_look_config, look_digest, source_digest
from finetune_operator.plan.dataset_objects import DatasetObject, DatasetObserved, DatasetPlan
from finetune_operator.plan.decision import DeleteJob, DeleteLeftover, Event, Operation
from finetune_operator.plan.desire import request_in
from finetune_operator.plan.failure import Culprit, find_culprit, read_message
from finetune_operator.plan.names import ANNOTATION_DIGEST
from finetune_operator.plan.namesake import DISPLAY_NAME_TAKEN, namesake_warning
from finetune_operator.plan.observed import Workload, parse_time
from finetune_operator.plan.retry import RetryPolicy, backoff
from finetune_operator.settings import PlanSettings

VALIDATE = "validate"
"""The verb of a request."""
FIRST_BACKOFF_SECONDS = 10.0
REFUSED_LOOK_AGAIN_SECONDS = 30.0
GONE_LOOK_AGAIN_SECONDS = 1.0
"""A Job that is being deleted: its own event comes too, but not where the watch is late."""
_KSTATUS = (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
_FORGOTTEN: dict[str, Any] = dict.fromkeys(("examples", "is_whole", "eval_examples", "malformed", "format", "digest", "tokens"))
_FORGOTTEN |= {"columns": [], "samples": []}
MAX_MESSAGE = 1024


class _Draft:
    """A plan in the making, alive for one call of ``plan_dataset``."""

    def __init__(self, observed: DatasetObserved, now: datetime, settings: PlanSettings) -> None:
        self.observed, self.now, self.settings = observed, now, settings
        self.status: DatasetStatus = observed.dataset.status
        self.asked_anew = False
        self._operations: list[Operation] = []
        self._events: list[Event] = []
        self._wake: float | None = None

    @property
    def dataset(self) -> DatasetObject:
        """As it was read."""
        return self.observed.dataset

    def change(self, **values: Any) -> None:
        self.status = self.status.model_copy(update=values)

    def do(self, *operations: Operation) -> None:
        self._operations.extend(operations)

    def say(self, event: Event) -> None:
        self._events.append(event)

    def wake_in(self, seconds: float) -> None:
        seconds = max(0.0, seconds)
        self._wake = seconds if self._wake is None else min(self._wake, seconds)

    def condition(self, kind: str, verdict: conditions.Verdict, reason: str, message: str) -> None:
        new = Condition(
            type=kind,
            status=verdict,
            reason=reason[:256] or "Unknown",
            message=message[:MAX_MESSAGE],
            last_transition_time=conditions.format_time(self.now),
            observed_generation=self.dataset.generation,
        )
        self.change(conditions=conditions.merge(self.status.conditions, new))

    def show(self, phase: DatasetPhase, reason: str, message: str) -> None:
        """Phase, and the conditions that follow from it."""
        self.change(phase=phase, reason=reason[:256])
        ready, invalid = phase is DatasetPhase.READY, phase is DatasetPhase.INVALID
        self.condition(ConditionType.READY, "True" if ready else "False", reason, message)
        self.condition(ConditionType.RECONCILING, "False" if ready or invalid else "True", reason, "" if ready or invalid else message)
        self.condition(ConditionType.STALLED, "True" if invalid else "False", reason, message if invalid else "")

    def show_again(self) -> None:
        """What was shown before, for the spec as it is now."""
        ready = conditions.find(self.status.conditions, ConditionType.READY)
        self.show(self.status.phase, self.status.reason or "Validated", ready.message if ready is not None else "")

    def advise(self, warnings: dict[str, str]) -> None:
        """Warnings of the last look, in place of those of the one before."""
        self.change(conditions=[c for c in self.status.conditions if c.type in (*_KSTATUS, DISPLAY_NAME_TAKEN)])
        for kind, message in warnings.items():
            if kind not in _KSTATUS:
                self.condition(kind, "True", "Looked", message)

    def done(self) -> DatasetPlan:
        return DatasetPlan(operations=tuple(self._operations), status=self.status, events=tuple(self._events), wake_seconds=self._wake)


def plan_dataset(observed: DatasetObserved, *, now: datetime, settings: PlanSettings) -> DatasetPlan:
    """Decide what must change so that the status says what the data is. Applying the result and deciding again changes nothing more."""
    draft = _Draft(observed, now, settings)
    if observed.dataset.deleted_at is not None:
        return draft.done()
    _sweep(draft)
    _take_request(draft)
    if draft.dataset.generation != draft.status.observed_generation:
        draft.change(failures=0, next_look_at=None)
    _judge(draft)
    _compare_names(draft)
    draft.change(observed_generation=draft.dataset.generation)
    return draft.done()


def _compare_names(draft: _Draft) -> None:
    """Say where an older Dataset has the same displayName; jobs go by metadata.name alone."""
    warning = namesake_warning(draft.dataset, draft.observed.namesake).get(DISPLAY_NAME_TAKEN)
    before = conditions.find(draft.status.conditions, DISPLAY_NAME_TAKEN)
    if warning is None:
        draft.change(conditions=[c for c in draft.status.conditions if c.type != DISPLAY_NAME_TAKEN])
        return
    draft.condition(DISPLAY_NAME_TAKEN, "True", "Advice", warning)
    if before is None or before.message != warning:
        draft.say(Event(reason=DISPLAY_NAME_TAKEN, message=warning, type="Warning", key=str(draft.dataset.generation)))


def _sweep(draft: _Draft) -> None:
    """Remove what the last look left; its answer is in the status."""
    past, config = draft.observed.past, draft.observed.past_config
    if config is not None:
        draft.do(DeleteLeftover(kind=config.kind, name=config.name, uid=config.uid))
    if past is not None:
        _delete(draft, past)


def _delete(draft: _Draft, look: Workload) -> None:
    if not look.deleting:
        draft.do(DeleteJob(name=look.name, uid=look.uid, propagation="Background"))
    draft.wake_in(GONE_LOOK_AGAIN_SECONDS)


def _take_request(draft: _Draft) -> None:
    """Act once on the request annotation."""
    request = request_in(draft.dataset.annotations, draft.status.last_handled_request)
    if request is None:
        return
    text = request.text
    if request.verb == VALIDATE:
        draft.change(looked_at=None, failures=0, next_look_at=None)
        draft.asked_anew = True
        draft.say(Event(reason="ValidateRequested", message=f"{text}: the data is looked at again.", key=text))
    else:
        message = f"{text}: unknown verb; write {VALIDATE}/<token>"
        draft.say(Event(reason="RequestIgnored", message=message, type="Warning", key=text))
    draft.change(last_handled_request=text)


def _judge(draft: _Draft) -> None:
    if draft.observed.namespace_terminating:
        draft.show(DatasetPhase.PENDING, "NamespaceTerminating", f"Namespace {draft.dataset.namespace} is being deleted.")
        return
    if draft.observed.refusal:
        draft.show(DatasetPhase.PENDING, "RefusedByCluster", f"The API server does not take the look's pod: {draft.observed.refusal}")
        draft.wake_in(REFUSED_LOOK_AGAIN_SECONDS)
        return
    try:
        validate_dataset(draft.dataset.spec)
    except SpecError as error:
        draft.change(looked_at=None, **_FORGOTTEN)
        draft.show(DatasetPhase.INVALID, "Invalid", "; ".join(map(str, error.problems)))
        if draft.observed.look is not None:
            _delete(draft, draft.observed.look)
        return
    _look(draft)


def _look(draft: _Draft) -> None:
    """See to it that the data is looked at, once."""
    config = build_look_config(draft.dataset, draft.settings)
    wanted, look = source_digest(config), draft.observed.look
    waits = parse_time(draft.status.next_look_at)
    if draft.status.looked_at == wanted:
        draft.show_again()
        if look is not None:
            _delete(draft, look)
    elif waits is not None and draft.now < waits:
        draft.show_again()
        draft.wake_in((waits - draft.now) / timedelta(seconds=1))
    elif look is None:
        draft.change(looked_at=None)
        draft.show(DatasetPhase.VALIDATING, "Looking", "A pod looks at the data.")
        draft.do(build_look(draft.dataset, config, draft.settings))
    elif look.deleting or draft.asked_anew or look.annotations.get(ANNOTATION_DIGEST) != look_digest(config):
        draft.show(DatasetPhase.VALIDATING, "Looking", "The look at what the spec said before is being given up.")
        _delete(draft, look)
    elif look.complete:
        _take_answer(draft, wanted)
    elif look.failed:
        _take_failure(draft, look, wanted)
    else:
        draft.show(DatasetPhase.VALIDATING, "Looking", _under_way(draft))


def _under_way(draft: _Draft) -> str:
    """What the pod waits for, if anything."""
    pod = draft.observed.pod
    if pod is not None and pod.waiting is not None:
        return f"The pod that looks at the data cannot start: {pod.waiting}: {pod.waiting_message}".rstrip(": ")
    if pod is not None and pod.unschedulable is not None:
        return f"The pod that looks at the data fits on no node: {pod.unschedulable}"
    return "A pod looks at the data."


def _take_answer(draft: _Draft, wanted: str) -> None:
    pod = draft.observed.pod
    message = read_message(pod.termination_message) if pod is not None else None
    try:
        result = LookResult.model_validate((message.result if message is not None else None) or {})
    except ValidationError:
        result = LookResult()
    if message is None or result.dataset is None:
        _try_again(draft, Culprit(FailureClass.UNKNOWN, "The pod that looked at the data left no answer."))
        return
    facts = result.dataset
    _close(draft, wanted)
    draft.change(
        examples=facts.examples,
        is_whole=facts.is_whole,
        eval_examples=facts.eval_examples,
        malformed=facts.skipped,
        format=facts.format[:256],
        columns=result.columns,
        samples=result.samples,
        digest=result.digest,
        tokens=_tokens(facts),
    )
    draft.advise(result.warnings)
    draft.show(DatasetPhase.READY, "Validated", message.message)
    draft.say(Event(reason="Validated", message=message.message[:MAX_MESSAGE], key=str(draft.status.looks)))
    for kind, text in result.warnings.items():
        draft.say(Event(reason=kind, message=text[:MAX_MESSAGE], type="Warning", key=str(draft.status.looks)))


def _tokens(facts: DatasetFacts) -> DatasetTokens | None:
    """Lengths of rows, where they were counted."""
    if not facts.token_rows:
        return None
    return DatasetTokens(rows=facts.token_rows, p50=facts.tokens_p50, p95=facts.tokens_p95, max=facts.tokens_max)


def _take_failure(draft: _Draft, look: Workload, wanted: str) -> None:
    """A fault of the data, its address or its credentials is for the user to mend; anything else is tried again."""
    pod = draft.observed.pod
    culprit = find_culprit([pod] if pod is not None else [], look)
    if REACTIONS[culprit.failure_class].retry is not Retry.NEVER:
        _try_again(draft, culprit)
        return
    _close(draft, wanted)
    draft.change(**_FORGOTTEN)
    draft.advise({})
    message = f"{culprit.message} When it is mended: annotate with finetune.dev/request={VALIDATE}/<token>, or change the spec."
    draft.show(DatasetPhase.INVALID, culprit.failure_class, message)
    draft.say(Event(reason=culprit.failure_class, message=message[:MAX_MESSAGE], type="Warning", key=str(draft.status.looks)))


def _close(draft: _Draft, wanted: str) -> None:
    """A look has told what there is to tell."""
    draft.change(
        looks=draft.status.looks + 1,
        looked_at=wanted,
        last_validated=conditions.format_time(draft.now),
        failures=0,
        next_look_at=None,
    )
    draft.wake_in(0)


def _try_again(draft: _Draft, culprit: Culprit) -> None:
    failures = draft.status.failures
    wait = backoff(RetryPolicy(0, FIRST_BACKOFF_SECONDS, draft.settings.max_backoff_seconds), failures)
    at = conditions.format_time(draft.now + timedelta(seconds=wait))
    draft.change(looks=draft.status.looks + 1, failures=failures + 1, next_look_at=at)
    message = f"{culprit.message} The next look begins at {at}."
    draft.show(DatasetPhase.PENDING, culprit.failure_class, message)
    draft.say(Event(reason=culprit.failure_class, message=message[:MAX_MESSAGE], type="Warning", key=str(draft.status.looks)))
    draft.wake_in(0)
