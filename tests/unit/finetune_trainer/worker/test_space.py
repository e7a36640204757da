"""A save without room is skipped by all, and said."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_api.contract.store import UsageSeconds
from finetune_trainer.worker.checkpoint import BYTES_PER_PARAMETER, MARGIN_BYTES, has_space
from finetune_trainer.worker.orders import Bit
from finetune_trainer.worker.staging import Staging
from finetune_trainer.worker.strategies import sharing_of
from finetune_trainer.worker.usage import Stopwatch

PARAMETERS = 1000


class Group:
    """A peer that may be short of space itself."""

    def __init__(self, peer: Bit = Bit.NONE) -> None:
        self.peer = peer

    def agree(self, bits: Bit) -> Bit:
        """Combine with the peer's."""
        return bits | self.peer


@pytest.mark.parametrize(
    ("free", "last_save", "peer", "expected"),
    [
        (MARGIN_BYTES + BYTES_PER_PARAMETER * PARAMETERS, 0, Bit.NONE, True),
        (MARGIN_BYTES + BYTES_PER_PARAMETER * PARAMETERS - 1, 0, Bit.NONE, False),
        (MARGIN_BYTES + 500, 500, Bit.NONE, True),
        (MARGIN_BYTES + 499, 500, Bit.NONE, False),
        (10**12, 500, Bit.NO_SPACE, False),
    ],
)
def test_space(monkeypatch: pytest.MonkeyPatch, free: int, last_save: int, peer: Bit, expected: bool) -> None:
    """The first save is estimated, later ones go by the one before; one rank without space is enough."""
    usage = SimpleNamespace(total=1, used=1, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    warnings: list[tuple[str, str]] = []
    session: Any = SimpleNamespace(
        plan=SimpleNamespace(output_dir=Path("/output")),
        last_save_bytes=last_save,
        saving=None,
        staging=Staging(),
        stopwatch=Stopwatch(time.monotonic, time.monotonic(), UsageSeconds()),
        group=Group(peer),
        sharing=sharing_of("none"),
        warn=lambda condition, message: warnings.append((condition, message)),
    )
    trainer: Any = SimpleNamespace(model=torch.nn.Linear(PARAMETERS, 1, bias=False), state=SimpleNamespace(global_step=7))
    assert has_space(session, trainer) is expected
    ((condition, message),) = warnings
    assert condition == "CheckpointSkipped"
    assert bool(message) is not expected, "an empty message clears the warning"
