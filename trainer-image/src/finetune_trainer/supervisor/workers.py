"""The worker processes of this pod: started, listened to, signalled, reaped; their exits and last lines are kept."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finetune_trainer.supervisor.events import WorkerExited
from finetune_trainer.supervisor.link import LinkServer
from finetune_trainer.supervisor.logs import WORKER_LOGGER, LogArchive

KEPT_LINES = 200
MAX_LINE_CHARACTERS = 8192
logger = logging.getLogger(WORKER_LOGGER)


class Process:
    """One child process with its output."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, cwd: Path, label: str, rank: int | None, archive: LogArchive
    ) -> None:
        self.rank = rank
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._label = label
        self._archive = archive
        self._popen = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output-{label}", daemon=True)
        self._reader.start()

    @property
    def code(self) -> int | None:
        """Exit code once reaped, negative for a signal."""
        return self._popen.returncode

    def wait(self, link: LinkServer | None = None) -> int:
        """Reap; then end what the process left behind in its session and collect the rest of what it printed, and reported on ``link``."""
        code = self._popen.wait()
        self.kill_session()
        self._reader.join(timeout=5)
        if link is not None:
            link.drain(self._popen.pid)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self._popen.send_signal(number)

    def kill_session(self) -> None:
        """End everything in the process's session, for example data loader workers."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _read(self) -> None:
        stream = self._popen.stdout
        assert stream is not None
        with stream:
            for raw in stream:
                line = raw.rstrip()[:MAX_LINE_CHARACTERS]
                if line:
                    level, text = _parse(line)
                    self.last_lines.append(text)
                    self._archive.write(f"[{self._label}] {text}")
                    logger.log(level, "%s", text, extra={"rank": self.rank})


class WorkerGroup:
    """The ranks of this pod."""

    def __init__(self, emit: Callable[[WorkerExited], None], link: LinkServer | None = None) -> None:
        """``link`` is where they report: ``emit`` gets an exit after all that was said before it."""
        self._emit = emit
        self._link = link
        self.processes: list[Process] = []
        self.exits: dict[int, WorkerExited] = {}
        """Local rank -> its exit."""
        self.terminated: set[int] = set()
        """Local ranks that we sent SIGTERM before they could be asked: such an end is not a failure."""
        self.killed: set[int] = set()
        """Local ranks that we killed because a peer was gone: their code says nothing."""

    def start(self, command: Sequence[str], environments: Sequence[Mapping[str, str]], *, cwd: Path, archive: LogArchive) -> None:
        """Start one process per environment (= local rank)."""
        for local_rank, environment in enumerate(environments):
            rank = int(environment["RANK"])
            process = Process(command, environment, cwd=cwd, label=f"rank {rank}", rank=rank, archive=archive)
            self.processes.append(process)
            threading.Thread(target=self._reap, args=(local_rank, process), name=f"reap-{rank}", daemon=True).start()

    @property
    def are_done(self) -> bool:
        """All have been reaped."""
        return len(self.exits) == len(self.processes)

    def record(self, event: WorkerExited) -> None:
        """Note an exit; called by the thread that handles events."""
        self.exits[event.local_rank] = event

    def terminate(self, local_ranks: Sequence[int]) -> None:
        """Send SIGTERM to those still running."""
        for local_rank in local_ranks:
            if local_rank not in self.exits:
                self.terminated.add(local_rank)
                self.processes[local_rank].send_signal(signal.SIGTERM)

    def show_stacks(self) -> None:
        """Have all that still run write the stacks of their threads to their output."""
        for local_rank, process in enumerate(self.processes):
            if local_rank not in self.exits:
                process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Send SIGKILL to all that still run."""
        for local_rank, process in enumerate(self.processes):
            if local_rank not in self.exits:
                self.killed.add(local_rank)
                process.send_signal(signal.SIGKILL)

    def _reap(self, local_rank: int, process: Process) -> None:
        code = process.wait(self._link)
        self._emit(WorkerExited(local_rank, code, time.monotonic()))


def _parse(line: str) -> tuple[int, str]:
    """Level and text of a line; workers log JSON, libraries print anything."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("message"), str):
                level = logging.getLevelNamesMapping().get(str(entry.get("level", "info")).upper(), logging.INFO)
                text = entry["message"] + (f"\n{entry['exception']}" if isinstance(entry.get("exception"), str) else "")
                return level, text
    return logging.INFO, line
