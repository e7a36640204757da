"""What is the same in every checkpoint of an attempt: written once, linked into each save. Training waits for every byte it writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.store.staging import link_or_copy


class SavedOnce:
    """``save_pretrained`` of a tokenizer or processor that does not change while it is used."""

    def __init__(self, saved: Any, directory: Path) -> None:
        """``directory`` is on the volume of the checkpoints and belongs to this object."""
        self._write = saved.save_pretrained
        self._directory = directory
        self._files: list[Path] = []

    def __call__(self, save_directory: str | Path, *_args: Any, **_kwargs: Any) -> None:
        """Put the files into ``save_directory``."""
        if not self._files:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._write(self._directory)
            self._files = [path for path in self._directory.rglob("*") if path.is_file()]
        for file in self._files:
            target = Path(save_directory) / file.relative_to(self._directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            link_or_copy(file, target)


def forget_card(adapter: Any) -> None:
    """Let PEFT write no README beside the adapter: in a checkpoint nobody reads it, and the result has a card of its own."""
    adapter.create_or_update_model_card = lambda *_args, **_kwargs: None
