"""What never changes is written once and linked into each checkpoint."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.worker.unchanging import SavedOnce


class Tokenizer:
    """Counts how often it writes itself."""

    written = 0

    def save_pretrained(self, directory: Path) -> None:
        self.written += 1
        (directory / "templates").mkdir(parents=True)
        (directory / "tokenizer.json").write_text(f"written {self.written}")
        (directory / "templates/chat.jinja").write_text("template")


def test_each_save_has_the_files_and_they_are_written_once(tmp_path: Path) -> None:
    tokenizer = Tokenizer()
    save = SavedOnce(tokenizer, tmp_path / "tokenizer")
    first, second = tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"
    save(first)
    (first / "tokenizer.json").unlink()  # the checkpoint is rotated away
    save(second)
    assert tokenizer.written == 1
    assert (second / "tokenizer.json").read_text() == "written 1"
    assert (second / "templates/chat.jinja").stat().st_nlink == 3


def test_a_save_over_an_older_one_replaces_its_files(tmp_path: Path) -> None:
    """A result is written anew after an attempt that was interrupted there."""
    (tmp_path / "final").mkdir()
    (tmp_path / "final/tokenizer.json").write_text("from before")
    SavedOnce(Tokenizer(), tmp_path / "tokenizer")(tmp_path / "final")
    assert (tmp_path / "final/tokenizer.json").read_text() == "written 1"


def test_what_an_earlier_attempt_wrote_is_not_taken_for_its_own(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/old.json").write_text("of another tokenizer")
    SavedOnce(Tokenizer(), tmp_path / "tokenizer")(tmp_path / "checkpoint-1")
    assert {path.name for path in (tmp_path / "checkpoint-1").iterdir()} == {"tokenizer.json", "templates"}
