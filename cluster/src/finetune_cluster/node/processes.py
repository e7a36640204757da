"""Starts programs that outlive the command, and ends exactly those again."""

import contextlib
import hashlib
import json
import os
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.shell import search_path, tail

_STATE_FIELD = 0
_START_TIME_FIELD = 19
"""Positions in /proc/<pid>/stat, counted behind the program's name."""
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A long-running program of the node."""

    name: str
    command: Sequence[str]
    files: Sequence[Path] = ()
    """Files it reads only at its start: it is started anew when one of them changes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 0

    def fingerprint(self) -> str:
        """Digest of everything that makes a running process up to date."""
        digest = hashlib.sha256(json.dumps([list(self.command), dict(self.environment), self.niceness]).encode())
        digest.update(str(Path(self.command[0]).resolve()).encode())
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Record:
    pid: int
    start_time: str
    """Ticks since boot: a number may be given to another process later, but not with the same start time."""
    boot_id: str
    fingerprint: str


class Processes:
    """The recorded processes of one folder."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def log_of(self, name: str) -> Path:
        """Return the file that takes a program's output."""
        return self._logs / f"{name}.log"

    def is_alive(self, name: str) -> bool:
        """Whether the process recorded under this name still runs."""
        record = self._read(name)
        return record is not None and _is_alive(record)

    def ensure(self, program: Program) -> bool:
        """Start a program unless it already runs as it should; return whether it was started."""
        record = self._read(program.name)
        if record is not None and _is_alive(record):
            if record.fingerprint == program.fingerprint():
                return False
            self.stop(program.name)
        self._start(program)
        return True

    def stop(self, name: str, *, grace_seconds: float = 10) -> None:
        """End a process, by force after the grace time, and forget it. One that no longer runs is only forgotten."""
        record = self._read(name)
        if record is not None and _is_alive(record):
            _end(record, grace_seconds)
        self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """List what was started and not stopped, alive or not."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def check(self, name: str) -> None:
        """Raise with the end of its log if a process that was started has ended."""
        if not self.is_alive(name):
            log = self.log_of(name)
            said = tail(log.read_text(errors="replace")) if log.exists() else "(no log)"
            raise ClusterError(f"{name} has ended; the end of {log}:\n{said}")

    def _start(self, program: Program) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        fingerprint = program.fingerprint()
        pid = _spawn(program, self.log_of(program.name))
        stat = _stat(pid)
        if stat is None:
            raise ClusterError(f"{program.name} ended at once; see {self.log_of(program.name)}")
        if program.niceness:
            os.setpriority(os.PRIO_PROCESS, pid, program.niceness)
        record = {"pid": pid, "start_time": stat[_START_TIME_FIELD], "boot_id": _boot_id(), "fingerprint": fingerprint}
        self._file(program.name).write_text(json.dumps(record))

    def _read(self, name: str) -> _Record | None:
        try:
            return _Record(**json.loads(self._file(name).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ClusterError(f"{self._file(name)} is damaged ({error}); end its process by hand and remove the file") from error

    def _file(self, name: str) -> Path:
        return self._records / f"{name}.json"


def _spawn(program: Program, log: Path) -> int:
    """Start a program in a session of its own, so that no terminal's end ends it, and return its number."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    ends = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    environment = {"PATH": search_path(), "HOME": str(Path.home()), **program.environment}
    try:
        with contextlib.chdir("/"):
            return os.posix_spawnp(program.command[0], list(program.command), environment, file_actions=ends, setsid=True)
    except FileNotFoundError as error:
        raise ClusterError(f"{program.name} cannot be started: {error}") from error
    finally:
        os.close(nothing)
        os.close(output)


def _is_alive(record: _Record) -> bool:
    stat = _stat(record.pid)
    if stat is None or record.boot_id != _boot_id():
        return False
    return stat[_START_TIME_FIELD] == record.start_time and stat[_STATE_FIELD] not in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    """Read a process's state, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _end(record: _Record, grace_seconds: float) -> None:
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        for number, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], wait_seconds)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(handle)
    raise ClusterError(f"process {record.pid} does not end, not even when killed: it is stuck in the kernel")
