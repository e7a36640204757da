from __future__ import annotations

import pytest

from finetune_api.lifecycle import PHASES, TRANSITIONS, may_follow
from finetune_api.models.status import FINAL_PHASES, Condition, ConditionType, Phase
from finetune_operator.plan import conditions


def test_every_phase_has_a_row() -> None:
    assert set(PHASES) == set(Phase)


@pytest.mark.parametrize("phase", sorted(FINAL_PHASES))
def test_final_phases_lead_nowhere(phase: Phase) -> None:
    """Design §3: Succeeded and Cancelled are final."""
    assert [other for other in Phase if other is not phase and may_follow(phase, other)] == []


READY_TRUE = {
    Phase.AWAITING_APPROVAL,
    Phase.AWAITING_BALANCE,
    Phase.QUEUED,
    Phase.TRAINING,
    Phase.EVALUATING,
    Phase.EXPORTING,
    Phase.PAUSED,
    Phase.STOPPED,
    Phase.CANCELLED,
    Phase.SUCCEEDED,
}
STALLED = {Phase.PENDING, Phase.FAILED}


@pytest.mark.parametrize("phase", list(Phase))
def test_kstatus_of_a_phase(phase: Phase) -> None:
    """Design §3: Ready while it trains, waits or rests; Reconciling only while the operator acts; Failed is Stalled. Exactly one."""
    verdicts = conditions.kstatus(phase, stalled_by_edit=False)
    expected = ConditionType.READY if phase in READY_TRUE else ConditionType.STALLED if phase in STALLED else ConditionType.RECONCILING
    assert {kind for kind, verdict in verdicts.items() if verdict == "True"} == {expected}


def test_a_refused_edit_is_stalled_whatever_the_pods_do() -> None:
    assert conditions.kstatus(Phase.TRAINING, stalled_by_edit=True)[ConditionType.STALLED] == "True"


def condition(status: str, at: str, message: str = "") -> Condition:
    return Condition.model_validate({"type": "Ready", "status": status, "reason": "R", "message": message, "lastTransitionTime": at})


def test_transition_time_moves_with_the_status_alone() -> None:
    old = [condition("True", "2026-01-01T00:00:00Z", "one")]
    same = conditions.merge(old, condition("True", "2026-02-02T00:00:00Z", "two"))
    other = conditions.merge(old, condition("False", "2026-02-02T00:00:00Z"))
    assert (same[0].last_transition_time, same[0].message) == ("2026-01-01T00:00:00Z", "two")
    assert other[0].last_transition_time == "2026-02-02T00:00:00Z"
    assert conditions.without(same, "Ready") == []


def test_a_way_is_listed_once() -> None:
    pairs = [(way.before, way.after) for way in TRANSITIONS]
    assert len(pairs) == len(set(pairs))


def test_every_phase_but_the_first_is_reached_and_every_open_one_is_left() -> None:
    assert {way.after for way in TRANSITIONS} == set(Phase)
    assert {way.before for way in TRANSITIONS} == set(Phase) - FINAL_PHASES
