"""A checkpoint exists when its manifest does, and only the newest attempt may write one."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_api.contract.store import StoredFile
from finetune_trainer.store.base import Store
from finetune_trainer.store.checkpoints import RunFacts, Save, SupersededError, claim_attempt, commit, read_parts, timestamp, upload_part
from finetune_trainer.store.errors import DigestMismatchError
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.store.transfer import download_files, fill_directory, inside
from tests.support.ledgers import make_attempt

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FACTS = RunFacts(attempt=1, pod=0, pods=2, world_size=2, kind="lora", strategy="ddp", global_batch=8, parent=None)


def make_save(directory: Path, *names: str, step: int = 10) -> Save:
    """A staged save with small files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text(f"content of {name}")
    return Save(step=step, total_steps=20, epoch=0.5, trigger="steps", staged=directory, names=names)


def test_only_all_parts_make_a_checkpoint(store: Store, tmp_path: Path) -> None:
    """R-11."""
    first, second = make_save(tmp_path / "0", "optimizer.pt", "rng_state_0.pth"), make_save(tmp_path / "1", "rng_state_1.pth")
    upload_part(store, first, FACTS, {})
    assert read_parts(store, 10, FACTS) is None
    assert read_ledger(store).checkpoints == []
    upload_part(store, second, dataclasses.replace(FACTS, pod=1), {})
    parts = read_parts(store, 10, FACTS)
    assert parts is not None
    manifest = commit(store, first, parts, FACTS, now=NOW)
    assert [file.path for file in manifest.files] == ["optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"]
    assert manifest.created_at == "2026-01-02T03:04:05Z"
    (found,) = read_ledger(store).checkpoints
    assert found.manifest == manifest
    assert not found.damage


def test_a_superseded_attempt_commits_nothing(store: Store, tmp_path: Path) -> None:
    facts = dataclasses.replace(FACTS, pods=1, world_size=1)
    assert claim_attempt(store, make_attempt(1))
    save = make_save(tmp_path / "s", "optimizer.pt")
    part = upload_part(store, save, facts, {})
    assert claim_attempt(store, make_attempt(2))
    assert not claim_attempt(store, make_attempt(2).model_copy(update={"pod_uid": "another"}))
    with pytest.raises(SupersededError, match="attempt 2 was claimed"):
        commit(store, save, [part], facts, now=NOW)
    assert read_ledger(store).checkpoints == []


def test_a_commit_tried_twice_is_one(store: Store, tmp_path: Path) -> None:
    facts = dataclasses.replace(FACTS, pods=1)
    save = make_save(tmp_path / "s", "optimizer.pt")
    part = upload_part(store, save, facts, {})
    first = commit(store, save, [part], facts, now=NOW)
    assert commit(store, save, [part], facts, now=datetime(2027, 1, 1, tzinfo=UTC)) == first


def test_files_that_are_up_are_not_sent_again(store: Store, tmp_path: Path) -> None:
    save = make_save(tmp_path / "s", "a", "b")
    sent = {"a": StoredFile(path="a", size=1, sha256="from the first try")}
    part = upload_part(store, save, FACTS, sent)
    assert part.files[0].sha256 == "from the first try"
    assert sent.keys() == {"a", "b"}


def test_damage_is_found_while_downloading(store: Store, tmp_path: Path) -> None:
    """Design §5: sha256 is checked while downloading."""
    save = make_save(tmp_path / "s", "optimizer.pt", "trainer_state.json")
    part = upload_part(store, save, FACTS, {})
    store.put("a1/checkpoint-10/optimizer.pt", b"content of optimizer.pX")
    with pytest.raises(DigestMismatchError, match=r"optimizer\.pt"):
        download_files(store, "a1/checkpoint-10", part.files, tmp_path / "out")


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b"])
def test_names_cannot_leave_the_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a name inside"):
        inside(tmp_path, name)


def test_a_filled_directory_is_complete_or_absent(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fill_directory(tmp_path / "cache/key", fail)
    assert list((tmp_path / "cache").iterdir()) == []
    fill_directory(tmp_path / "cache/key", lambda directory: (directory / "file").touch())
    fill_directory(tmp_path / "cache/key", fail)
    assert [path.name for path in (tmp_path / "cache/key").iterdir()] == ["file"]


def test_two_pods_fill_one_cache_at_once(tmp_path: Path) -> None:
    """Several pods may share the cache claim: the first one wins, the other's work is thrown away."""

    def fill(directory: Path) -> None:
        (directory / "late").touch()
        fill_directory(tmp_path / "key", lambda first: (first / "first").touch())

    assert fill_directory(tmp_path / "key", fill) == tmp_path / "key"
    assert [path.name for path in (tmp_path / "key").iterdir()] == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_timestamps_are_utc() -> None:
    assert timestamp(datetime(2026, 1, 1, 12, tzinfo=UTC)) == "2026-01-01T12:00:00Z"
