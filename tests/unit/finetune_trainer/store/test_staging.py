"""Putting a save aside, and what happens when uploads are slower than saves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.store import Trigger
from finetune_trainer.store.checkpoints import Save
from finetune_trainer.store.slots import UploadQueue, plan_waiting
from finetune_trainer.store.staging import owned_files, stage, wanted_files

NAMES = ["adapter_model.safetensors", "finetune_rank_2.json", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", "rng_state_2.pth"]


def write(directory: Path) -> Path:
    directory.mkdir()
    for name in NAMES:
        (directory / name).write_text(name)
    return directory


def test_each_pod_owns_its_ranks_files_and_pod_0_the_common_ones(tmp_path: Path) -> None:
    directory = write(tmp_path / "save")
    assert owned_files(directory, pod=0, ranks=range(2)) == [
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state_0.pth",
        "rng_state_1.pth",
    ]
    assert owned_files(directory, pod=1, ranks=range(2, 4)) == ["finetune_rank_2.json", "rng_state_2.pth"]
    assert wanted_files(NAMES, range(2, 4)) == ["adapter_model.safetensors", "finetune_rank_2.json", "optimizer.pt", "rng_state_2.pth"]


def test_staging_links_and_survives_the_original(tmp_path: Path) -> None:
    directory = write(tmp_path / "save")
    stage(directory, tmp_path / "staged", NAMES)
    assert (tmp_path / "staged/optimizer.pt").stat().st_nlink == 2
    (directory / "optimizer.pt").unlink()
    assert (tmp_path / "staged/optimizer.pt").read_text() == "optimizer.pt"


def test_staging_copies_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE and SMB volumes have no hard links."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    stage(write(tmp_path / "save"), tmp_path / "staged", NAMES)
    assert (tmp_path / "staged/optimizer.pt").stat().st_nlink == 1
    assert (tmp_path / "staged/optimizer.pt").read_text() == "optimizer.pt"


def test_a_failed_staging_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stage(write(tmp_path / "save"), tmp_path / "staged", ["optimizer.pt", "absent"])
    assert not (tmp_path / "staged").exists()


def make_save(step: int, trigger: Trigger = "steps", *, best: bool = False) -> Save:
    return Save(step=step, total_steps=100, epoch=0, trigger=trigger, staged=Path("nowhere"), names=(), is_best=best)


def test_a_newer_save_replaces_the_waiting_one() -> None:
    old, new = make_save(10), make_save(20)
    assert plan_waiting([old], new) == ([new], [old])


@pytest.mark.parametrize("protected", [make_save(10, "pause"), make_save(10, "stop"), make_save(10, "final"), make_save(10, best=True)])
def test_pause_best_and_final_are_never_replaced(protected: Save) -> None:
    assert plan_waiting([protected], make_save(20)) == ([protected, make_save(20)], [])


saves = st.builds(make_save, st.integers(1, 1000), st.sampled_from(["steps", "steps", "epoch", "pause", "final"]), best=st.booleans())


@given(st.lists(saves, max_size=20))
def test_at_most_one_unprotected_save_waits_and_the_newest_always_does(arriving: list[Save]) -> None:
    waiting: list[Save] = []
    gone: list[Save] = []
    for save in arriving:
        waiting, replaced = plan_waiting(waiting, save)
        gone += replaced
        assert waiting[-1] is save
        assert len([one for one in waiting if not one.is_protected]) <= 1
    assert not [save for save in gone if save.is_protected]
    assert len(waiting) + len(gone) == len(arriving)


def test_queue_hands_out_in_order_and_knows_when_it_is_idle() -> None:
    replaced: list[int] = []
    queue = UploadQueue(may_replace=True, on_replaced=lambda save: replaced.append(save.step))
    assert queue.is_idle
    queue.offer(make_save(10))
    first = queue.take()
    assert first is not None
    assert first.step == 10
    queue.offer(make_save(20))
    queue.offer(make_save(30))
    assert replaced == [20]
    assert queue.pending_steps == [10, 30]
    assert queue.take() == make_save(30)
    assert queue.pending_steps == [30]
    queue.close()
    assert queue.take() is None
    assert queue.is_idle


def test_other_pods_drop_only_what_pod_0_skipped() -> None:
    """Parts of a checkpoint must meet: pod 0 alone decides what is skipped."""
    dropped: list[int] = []
    queue = UploadQueue(may_replace=False, on_replaced=lambda save: dropped.append(save.step))
    queue.offer(make_save(10))
    queue.offer(make_save(20))
    assert dropped == []
    queue.drop([10])
    assert dropped == [10]
    assert queue.take() == make_save(20)
