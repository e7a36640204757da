"""Copies a checkpoint is written from, and the writing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.worker import behind
from finetune_trainer.worker.behind import Copies, Writing, free_memory

KB = 1024


def test_copies_keep_what_was_while_the_tensors_change() -> None:
    state: dict[str, Any] = {
        "weights": {"a": torch.ones(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "lr": (0.1, 0.2), "groups": [{"params": [0]}]},
    }
    copied = Copies().take(state)
    state["weights"]["a"].zero_()
    state["optimizer"]["state"][0]["step"].add_(1)
    assert copied["weights"]["a"].tolist() == [1, 1, 1]
    assert float(copied["optimizer"]["state"][0]["step"]) == 4
    assert copied["optimizer"]["lr"] == (0.1, 0.2)
    assert copied["optimizer"]["groups"] == [{"params": [0]}]


def test_what_is_tied_stays_tied() -> None:
    """A head that shares the embedding's weights is one tensor in the file, too."""
    shared = torch.ones(2, 2)
    copied = Copies().take({"embed": shared, "head": shared, "other": torch.ones(2, 2)})
    assert copied["embed"].data_ptr() == copied["head"].data_ptr() != copied["other"].data_ptr()


def test_memory_is_used_again_and_given_up_when_shapes_change() -> None:
    copies = Copies()
    first = copies.take({"a": torch.ones(5), "b": torch.zeros(5)})
    second = copies.take({"a": torch.full((5,), 2.0), "b": torch.full((5,), 3.0)})
    assert {t.data_ptr() for t in first.values()} == {t.data_ptr() for t in second.values()}
    assert (second["a"].tolist(), second["b"].tolist()) == ([2] * 5, [3] * 5)
    assert copies.take({"c": torch.ones(7)})["c"].tolist() == [1] * 7


def test_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the size must be free; what is kept from the last time counts."""
    copies = Copies()
    state = {"a": torch.zeros(256)}
    monkeypatch.setattr(behind, "free_memory", lambda: 2 * KB - 1)
    assert copies.take(state) is None
    monkeypatch.setattr(behind, "free_memory", lambda: 2 * KB)
    assert copies.take(state) is not None
    monkeypatch.setattr(behind, "free_memory", lambda: KB)
    assert copies.take(state) is not None


VERSIONS = {
    2: ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("limit", "free"),
    [(None, 9000 * KB), ("max", 9000 * KB), (str(3000 * KB), (3000 - 2500 + 500) * KB), (str(90000 * KB), 9000 * KB)],
)
def test_free_memory(tmp_path: Path, version: int, limit: str | None, free: int) -> None:
    """The machine's, or what the pod's limit leaves; files in the cache make way."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000 kB\nMemAvailable:    9000 kB\n")
    if limit is not None:
        most, used, stat, cached = VERSIONS[version]
        (tmp_path / most).parent.mkdir(exist_ok=True)
        (tmp_path / most).write_text(f"{limit}\n")
        (tmp_path / used).write_text(f"{2500 * KB}\n")
        (tmp_path / stat).write_text(f"anon 5\n{cached} {500 * KB}\n")
    assert free_memory(meminfo, tmp_path) == free


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_writing_ends_when_all_parts_have(tmp_path: Path, threads: Executor) -> None:
    go_on = threading.Event()
    writing = Writing(threads, [(tmp_path / "a").touch, lambda: assert_set(go_on)])
    writing.begin()
    had_ended = writing.has_ended
    go_on.set()
    writing.wait()
    assert (had_ended, writing.has_ended) == (False, True)
    assert (tmp_path / "a").exists()


def test_a_part_that_failed_is_told_after_all_have_ended(tmp_path: Path, threads: Executor) -> None:
    go_on = threading.Event()

    def fail() -> None:
        raise OSError(28, "No space left on device")

    def last() -> None:
        assert_set(go_on)
        (tmp_path / "b").touch()

    writing = Writing(threads, [fail, last])
    writing.begin()
    go_on.set()
    with pytest.raises(OSError, match="No space"):
        writing.wait()
    assert (tmp_path / "b").exists()


def assert_set(event: threading.Event) -> None:
    """Wait until the test lets a part go on."""
    assert event.wait(60)
