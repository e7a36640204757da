"""Temporary directories that nobody fills any more."""

from __future__ import annotations

import os
from pathlib import Path

from finetune_trainer.store.transfer import fill_directory, remove_stale


def make_old(path: Path, seconds: float) -> None:
    """Set back the times of a directory and all in it."""
    for entry in [*path.rglob("*"), path]:
        moment = entry.stat().st_mtime - seconds
        os.utime(entry, (moment, moment))


def test_only_what_nothing_was_written_to_goes(tmp_path: Path) -> None:
    """A shared cache: another pod may be filling one right now, and finished ones stay."""
    done = fill_directory(tmp_path / "objects/abc", lambda directory: (directory / "weights").touch())
    for name in ("objects/.filling-a-1", "prepared/.filling-b-2", "objects/.download-3", "objects/.filling-c-4"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/file").write_bytes(b"x")
        make_old(tmp_path / name, 7200)
    make_old(done, 7200)
    (tmp_path / "objects/.filling-c-4/deep/file").write_bytes(b"more")
    removed = remove_stale(tmp_path, seconds=3600)
    assert sorted(path.name for path in removed) == [".download-3", ".filling-a-1", ".filling-b-2"]
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == [".filling-c-4", "abc"]
    assert remove_stale(tmp_path, seconds=3600) == []
