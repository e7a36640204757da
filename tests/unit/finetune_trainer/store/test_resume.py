"""Which checkpoint an attempt starts from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import AttemptRecord, CheckpointRef
from finetune_trainer.errors import TrainerError
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint
from finetune_trainer.store.resume import check_global_batch, plan_resume
from tests.support.ledgers import make_attempt, make_checkpoint, make_ledger, ref


def auto(ledger: Ledger) -> tuple[CheckpointRef, ...]:
    """Candidates without a wish."""
    return plan_resume(ledger, resume_from=None, auto_resume=True)


def test_nothing_there_means_from_scratch() -> None:
    assert auto(Ledger()) == ()


def test_newest_attempt_highest_step_first() -> None:
    ledger = make_ledger({1: make_attempt(1)}, [make_checkpoint(1, 100), make_checkpoint(1, 500), make_checkpoint(1, 1000)])
    assert auto(ledger) == (ref(1, 1000), ref(1, 500), ref(1, 100))


def test_an_attempt_without_a_checkpoint_falls_back_to_its_parent() -> None:
    ledger = make_ledger({1: make_attempt(1), 2: make_attempt(2, ref(1, 500))}, [make_checkpoint(1, 500), make_checkpoint(1, 1000)])
    assert auto(ledger) == (ref(1, 500),)


def test_the_abandoned_branch_is_never_resumed() -> None:
    """Trials: 1000 steps, restart from 500, kill at 700: resumes from at most 700 of the new branch."""
    attempts = {1: make_attempt(1), 2: make_attempt(2, ref(1, 500), "checkpoint-500")}
    checkpoints = [make_checkpoint(1, step) for step in (100, 500, 1000)]
    branch = [make_checkpoint(2, step, ref(1, 500)) for step in (600, 700)]
    assert auto(make_ledger(attempts, checkpoints + branch)) == (ref(2, 700), ref(2, 600), ref(1, 500), ref(1, 100))


def test_a_late_commit_of_a_fenced_attempt_is_ignored() -> None:
    """A lost node that kept training cannot bring its later steps back."""
    attempts = {1: make_attempt(1), 2: make_attempt(2, ref(1, 100))}
    assert auto(make_ledger(attempts, [make_checkpoint(1, 100), make_checkpoint(1, 150)])) == (ref(1, 100),)


def test_damaged_and_stripped_checkpoints_are_passed_over() -> None:
    checkpoints = [make_checkpoint(1, 100), make_checkpoint(1, 200, resumable=False), make_checkpoint(1, 300, missing=["optimizer.pt"])]
    assert auto(make_ledger({1: make_attempt(1)}, checkpoints)) == (ref(1, 100),)


def test_a_manifest_knows_its_parent_better_than_the_claim() -> None:
    """The claim is written before verification may fall back."""
    attempts = {1: make_attempt(1), 2: make_attempt(2, ref(1, 200))}
    checkpoints = [make_checkpoint(1, 100), make_checkpoint(1, 200), make_checkpoint(2, 150, ref(1, 100), missing=["optimizer.pt"])]
    assert auto(make_ledger(attempts, checkpoints)) == (ref(1, 100),)


def test_a_parent_elsewhere_ends_the_lineage() -> None:
    elsewhere = CheckpointRef(attempt=0, step=500, uri="s3://other/checkpoint-500")
    assert auto(make_ledger({1: make_attempt(1, elsewhere, elsewhere.uri)}, [])) == (elsewhere,)


def test_each_wish_is_carried_out_once() -> None:
    """R-06: after the first attempt of a wish, recovery goes on from its own newest checkpoint."""
    first = make_ledger({1: make_attempt(1)}, [make_checkpoint(1, 500), make_checkpoint(1, 1000)])
    assert plan_resume(first, resume_from="checkpoint-500", auto_resume=True) == (ref(1, 500),)
    attempts = {1: make_attempt(1), 2: make_attempt(2, ref(1, 500), "checkpoint-500")}
    second = make_ledger(attempts, [*first.checkpoints, make_checkpoint(2, 600, ref(1, 500))])
    assert plan_resume(second, resume_from="checkpoint-500", auto_resume=True)[0] == ref(2, 600)


def test_none_starts_anew_once() -> None:
    """R-09: from scratch although checkpoints exist; later attempts stay on the new branch."""
    ledger = make_ledger({1: make_attempt(1)}, [make_checkpoint(1, 500)])
    assert plan_resume(ledger, resume_from="none", auto_resume=True) == ()
    later = make_ledger({1: make_attempt(1), 2: make_attempt(2, None, "none")}, [make_checkpoint(1, 500), make_checkpoint(2, 20)])
    assert plan_resume(later, resume_from="none", auto_resume=True) == (ref(2, 20),)


def test_latest_is_the_lineage() -> None:
    ledger = make_ledger({1: make_attempt(1)}, [make_checkpoint(1, 500)])
    assert plan_resume(ledger, resume_from="latest", auto_resume=False) == (ref(1, 500),)


def test_without_auto_resume_every_attempt_starts_where_the_first_did() -> None:
    ledger = make_ledger({1: make_attempt(1)}, [make_checkpoint(1, 500)])
    assert plan_resume(ledger, resume_from=None, auto_resume=False) == ()
    twice = make_ledger({1: make_attempt(1), 2: make_attempt(2, ref(1, 500), "checkpoint-500")}, [make_checkpoint(1, 500)])
    assert plan_resume(twice, resume_from="checkpoint-500", auto_resume=False) == (ref(1, 500),)


def test_a_uri_is_taken_as_it_is() -> None:
    wished = plan_resume(Ledger(), resume_from="s3://b/run/checkpoint-500/", auto_resume=True)
    assert wished == (CheckpointRef(attempt=0, step=500, uri="s3://b/run/checkpoint-500"),)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (make_checkpoint(1, 100), "has no complete checkpoint-500; it has checkpoint-100"),
        (
            make_checkpoint(1, 500, missing=["optimizer.pt"]),
            r"checkpoint-500 is incomplete, optimizer.pt is missing or cut short; complete are none",
        ),
        (make_checkpoint(1, 500, resumable=False), "keeps its weights only"),
    ],
)
def test_a_wish_that_cannot_be_met_says_why(checkpoint: StoredCheckpoint, message: str) -> None:
    """AC-08: refused as incomplete, the missing file named."""
    ledger = make_ledger({1: make_attempt(1)}, [checkpoint])
    with pytest.raises(TrainerError, match=message) as caught:
        plan_resume(ledger, resume_from="checkpoint-500", auto_resume=True)
    assert caught.value.failure_class == FailureClass.CHECKPOINT_INCOMPLETE


def test_global_batch_must_stay() -> None:
    """Design §5: DDP resize keeps batch x accumulation x world, else refused with the nearest valid values."""
    check_global_batch(16, batch_size=2, accumulation=4, world_size=2)
    with pytest.raises(TrainerError, match=r"batchSize 2, gradAccumSteps 8; batchSize 1, gradAccumSteps 16; batchSize 4"):
        check_global_batch(16, batch_size=2, accumulation=4, world_size=1)
    with pytest.raises(TrainerError, match="use a number of ranks that divides 16"):
        check_global_batch(16, batch_size=2, accumulation=4, world_size=3)


@st.composite
def histories(draw: st.DrawFn) -> Ledger:
    """Any history a job can have: each attempt starts from a checkpoint of an earlier one or from scratch; some checkpoints are damaged."""
    attempts: dict[int, AttemptRecord] = {}
    checkpoints: list[StoredCheckpoint] = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        parent = draw(st.sampled_from([None, *(found.ref for found in checkpoints)]))
        attempts[number] = make_attempt(number, parent)
        start = parent.step if parent else 0
        steps = draw(st.lists(st.integers(start + 1, start + 50), unique=True, max_size=4))
        for step in sorted(steps):
            missing = draw(st.sampled_from([(), (), ("optimizer.pt",)]))
            checkpoints.append(make_checkpoint(number, step, parent, resumable=draw(st.sampled_from([True, True, False])), missing=missing))
    return make_ledger(attempts, checkpoints)


def ancestors(ledger: Ledger) -> dict[int, int | None]:
    """Attempts the newest one descends from, with the highest step that belongs to its history."""
    found: dict[int, int | None] = {}
    attempt, limit = ledger.newest_attempt, None
    while True:
        found[attempt] = limit
        parent = ledger.attempts[attempt].parent
        if parent is None:
            return found
        attempt, limit = parent.attempt, parent.step


@given(histories())
def test_only_whole_checkpoints_of_the_own_history_newest_first(ledger: Ledger) -> None:
    candidates = auto(ledger)
    history = ancestors(ledger)
    for candidate in candidates:
        checkpoint = ledger.find(candidate)
        assert checkpoint is not None
        assert checkpoint.manifest.resumable
        assert not checkpoint.damage
        limit = history[candidate.attempt]
        assert limit is None or candidate.step <= limit
    places = [(candidate.attempt, candidate.step) for candidate in candidates]
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == len(places)


@given(histories())
def test_no_usable_checkpoint_of_the_own_history_is_left_out(ledger: Ledger) -> None:
    history = ancestors(ledger)
    usable = {
        (found.attempt, found.step)
        for found in ledger.checkpoints
        if found.attempt in history
        and found.manifest.resumable
        and not found.damage
        and ((limit := history[found.attempt]) is None or found.step <= limit)
    }
    assert {(candidate.attempt, candidate.step) for candidate in auto(ledger)} == usable
