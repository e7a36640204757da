"""The supervisor as a pod runs it, with fake worker and prepare programs and the paths of a test.

``TEST_DISK_FULL`` names a file: while it exists, nothing can be put aside for upload. ``TEST_CLOCK_JUMP`` names a file with the seconds the
wall clock is off. ``TEST_STALL_SECONDS`` is a limit of stalls that the API does not allow, ``TEST_PATIENCE_SECONDS`` how long an upload
tries before it says so. With ``TEST_HANG_AT_COMMIT`` nothing is uploaded any more once a checkpoint is complete.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import threading
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from finetune_trainer.supervisor.signals import StopSignals


def fill_disk(flag: Path) -> None:
    """Refuse to link and to copy while the flag is there."""
    from finetune_trainer.store import staging  # noqa: PLC0415 - after the signals are caught

    def refuse(_source: Path, _destination: Path) -> None:
        if flag.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.link(_source, _destination)

    mock.patch.object(staging, "link_or_copy", refuse).start()


def skew_clock(jump: Path) -> None:
    """Move what the supervisor takes for the time of day."""
    from finetune_trainer.supervisor import progress, uploads  # noqa: PLC0415 - likewise

    real = time.time

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=float(jump.read_text()))

    mock.patch("time.time", side_effect=lambda: real() + float(jump.read_text())).start()
    for module in (progress, uploads):
        mock.patch.object(module, "datetime", Skewed).start()


def hurry_stalls(seconds: float) -> None:
    """Take ranks for stalled sooner than the API lets anybody ask for."""
    from finetune_trainer.supervisor import overseer, stall  # noqa: PLC0415 - likewise

    mock.patch.object(stall, "StallWatch", return_value=stall.StallWatch(seconds)).start()
    mock.patch.object(overseer, "STACK_SECONDS", 1.0).start()


def hurry_uploads(seconds: float) -> None:
    """Say sooner that an upload fails, and try again sooner."""
    from finetune_trainer.supervisor import uploads  # noqa: PLC0415 - likewise

    mock.patch.object(uploads, "CALL_PATIENCE_SECONDS", seconds).start()
    mock.patch.object(uploads, "LONGEST_RETRY_SECONDS", seconds).start()


def hang_at_commit() -> None:
    """Do nothing more in the uploader's thread when a manifest is written."""
    from finetune_trainer.store.checkpoints import commit  # noqa: PLC0415 - likewise
    from finetune_trainer.supervisor import uploads  # noqa: PLC0415 - likewise

    def last(*arguments: Any, **options: Any) -> NoReturn:
        commit(*arguments, **options)
        while True:
            threading.Event().wait()

    mock.patch.object(uploads, "commit", last).start()


if __name__ == "__main__":
    signals = StopSignals()
    signals.install()
    from finetune_trainer.supervisor.environment import pod_environment
    from finetune_trainer.supervisor.train import run_train

    if full := os.environ.get("TEST_DISK_FULL"):
        fill_disk(Path(full))
    if offset := os.environ.get("TEST_CLOCK_JUMP"):
        skew_clock(Path(offset))
    if limit := os.environ.get("TEST_STALL_SECONDS"):
        hurry_stalls(float(limit))
    if patience := os.environ.get("TEST_PATIENCE_SECONDS"):
        hurry_uploads(float(patience))
    if os.environ.get("TEST_HANG_AT_COMMIT"):
        hang_at_commit()
    fake = (sys.executable, "-P", str(Path(__file__).with_name("fake_program.py")))
    environment = dataclasses.replace(
        pod_environment(os.environ), program=fake, progress_token=Path(os.environ["TEST_TOKEN"]), progress_ca=Path(os.environ["TEST_CA"])
    )
    code = run_train(signals, environment, os.environ)
    sys.stdout.flush()
    os._exit(code)
