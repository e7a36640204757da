"""TensorBoard: event files in a local directory, which the supervisor uploads."""

from __future__ import annotations

import json
from collections.abc import Mapping

from finetune_trainer.worker.trackers.target import Target, dotted


class TensorboardFiles:
    """Writes event files."""

    def __init__(self, target: Target) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # One file per attempt; purge_step makes the viewer forget steps of the attempt before that were lost.
        self._writer = SummaryWriter(
            str(target.directory), purge_step=target.first_step, filename_suffix=f".attempt-{target.attempt}", flush_secs=10
        )
        if target.first_step == 1:
            self._writer.add_text("parameters", f"```json\n{json.dumps(dotted(target.parameters), indent=2)}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def connect(target: Target) -> TensorboardFiles:
    """Open the event file."""
    target.directory.mkdir(parents=True, exist_ok=True)
    return TensorboardFiles(target)
