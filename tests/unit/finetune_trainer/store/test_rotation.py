"""Which checkpoints go, and that no manifest ever promises a file that is gone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.store import CheckpointRef
from finetune_trainer.store.base import Store
from finetune_trainer.store.ledger import manifest_key, read_ledger
from finetune_trainer.store.local import LocalStore
from finetune_trainer.store.rotation import OPTIMIZER_FILE, RotationPlan, apply_rotation, leftovers, plan_local_rotation, plan_rotation
from tests.support.ledgers import FILES, make_manifest, ref


@pytest.mark.parametrize(
    ("steps", "keep", "best", "gone"),
    [([100, 200, 300], 2, None, [100]), ([100, 200, 300], 2, 100, []), ([100, 200], 2, None, []), ([300, 100, 200], 1, None, [100, 200])],
)
def test_local_rotation(steps: list[int], keep: int, best: int | None, gone: list[int]) -> None:
    """AC-28: keepLast 2 with saves at 100, 200, 300: only 200 and 300 are left (and the best)."""
    assert plan_local_rotation(steps, keep_last=keep, best=best) == gone


def test_the_last_ones_stay_resumable_older_ones_lose_their_optimizer() -> None:
    checkpoints = [(ref(1, step), True) for step in (100, 200, 300, 400)]
    plan = plan_rotation(checkpoints, keep_last=2, keep_last_remote=100, protected=())
    assert plan == RotationPlan(strip=(ref(1, 100), ref(1, 200)))


def test_beyond_keep_last_remote_they_are_deleted() -> None:
    checkpoints = [(ref(1, step), step > 200) for step in (100, 200, 300, 400)]
    assert plan_rotation(checkpoints, keep_last=1, keep_last_remote=3, protected=()) == RotationPlan((ref(1, 300),), (ref(1, 100),))


references = st.builds(ref, st.integers(1, 5), st.integers(1, 30))
lists = st.lists(st.tuples(references, st.booleans()), unique_by=lambda item: (item[0].attempt, item[0].step))
"""Checkpoints in any order, each with whether it is resumable."""


@given(lists, st.integers(1, 8), st.integers(1, 8), st.data())
def test_newest_best_and_parent_are_never_touched(
    items: list[tuple[CheckpointRef, bool]], keep: int, remote: int, data: st.DataObject
) -> None:
    ordered = sorted(items, key=lambda item: (item[0].attempt, item[0].step))
    protected = set(data.draw(st.lists(st.sampled_from([item[0] for item in ordered]), max_size=2))) if ordered else set()
    plan = plan_rotation(ordered, keep_last=keep, keep_last_remote=remote, protected=protected)
    touched = {*plan.strip, *plan.delete}
    assert not touched & protected
    assert not ordered or ordered[-1][0] not in touched
    assert not set(plan.strip) & set(plan.delete)
    kept = [item for item in ordered if item[0] not in plan.delete]
    assert len([item for item in kept if item[0] not in protected]) <= max(remote, 1)
    resumable_left = [item for item, resumable in ordered if resumable and item not in touched and item not in protected]
    assert len(resumable_left) <= max(keep, 1)


@given(lists, st.integers(1, 8), st.integers(1, 8))
def test_a_second_rotation_does_nothing(items: list[tuple[CheckpointRef, bool]], keep: int, remote: int) -> None:
    ordered = sorted(items, key=lambda item: (item[0].attempt, item[0].step))
    plan = plan_rotation(ordered, keep_last=keep, keep_last_remote=remote, protected=())
    after = [(item, resumable and item not in plan.strip) for item, resumable in ordered if item not in plan.delete]
    assert plan_rotation(after, keep_last=keep, keep_last_remote=remote, protected=()) == RotationPlan()


class InterruptedStore(LocalStore):
    """Fails at the n-th change."""

    changes_left = 0

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._count()
            super().delete([key])

    def _count(self) -> None:
        if self.changes_left == 0:
            raise InterruptedError
        self.changes_left -= 1


def fill(store: Store, steps: Iterable[int]) -> None:
    """Whole checkpoints of attempt 1."""
    for step in steps:
        for name in FILES:
            store.put(f"a1/checkpoint-{step}/{name}", b"0123456789")
        store.put(manifest_key(1, step), make_manifest(1, step).to_json().encode())


@pytest.mark.parametrize("changes", range(9))
def test_an_interrupted_rotation_never_leaves_a_lying_manifest(tmp_path: Path, changes: int) -> None:
    """Strip: manifest first, then files. Delete: manifest first, then files."""
    store = InterruptedStore(tmp_path)
    store.changes_left = 1000
    fill(store, (100, 200, 300))
    store.changes_left = changes
    plan = RotationPlan(strip=(ref(1, 200),), delete=(ref(1, 100),))
    try:
        apply_rotation(store, read_ledger(store), plan)
    except InterruptedError:
        assert changes < 8
    assert all(not found.damage for found in read_ledger(store).checkpoints)
    store.changes_left = 1000
    ledger = read_ledger(store)
    apply_rotation(store, ledger, plan)
    store.delete(leftovers(read_ledger(store), attempt=2, committed_step=1))
    keys = {info.key for info in store.list()}
    assert not any(key.startswith("a1/checkpoint-100/") for key in keys)
    assert "a1/checkpoint-200/optimizer.pt" not in keys
    assert "a1/checkpoint-200/adapter_model.safetensors" in keys


def test_leftovers_are_folders_without_a_manifest_of_older_attempts_and_skipped_saves(store: Store) -> None:
    fill(store, (100,))
    for key in ("a1/checkpoint-150/rng_state_1.pth", "a2/checkpoint-160/rng_state_1.pth", "a2/checkpoint-180/optimizer.pt"):
        store.put(key, b"x")
    ledger = read_ledger(store)
    assert sorted(leftovers(ledger, attempt=2, committed_step=170)) == [
        "a1/checkpoint-150/rng_state_1.pth",
        "a2/checkpoint-160/rng_state_1.pth",
    ]


@pytest.mark.parametrize(
    ("name", "is_optimizer"),
    [
        ("optimizer.pt", True),
        ("optimizer.bin", True),
        ("optimizer_0/__0_0.distcp", True),
        ("global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt", True),
        ("adapter_model.safetensors", False),
        ("global_step5/mp_rank_00_model_states.pt", True),
        ("trainer_state.json", False),
    ],
)
def test_what_counts_as_optimizer(name: str, is_optimizer: bool) -> None:
    assert bool(OPTIMIZER_FILE.fullmatch(name)) == is_optimizer
