import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_cluster.errors import ClusterError
from finetune_cluster.node.processes import Processes, Program

PATIENT = Program("patient", ["sleep", "600"])


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "pids", tmp_path / "logs")
    yield processes
    started = [pid_of(tmp_path, name) for name in processes.names()]
    for name in processes.names():
        processes.stop(name)
    for pid in started:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def pid_of(tmp_path: Path, name: str = "patient") -> int:
    pid: int = json.loads((tmp_path / "pids" / f"{name}.json").read_text())["pid"]
    return pid


def test_a_running_program_is_left_alone_by_a_later_command(processes: Processes, tmp_path: Path) -> None:
    assert processes.ensure(PATIENT)
    pid = pid_of(tmp_path)
    later = Processes(tmp_path / "pids", tmp_path / "logs")
    assert not later.ensure(PATIENT)
    assert later.is_alive("patient")
    assert pid_of(tmp_path) == pid


def test_it_survives_the_terminal_it_was_started_from(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(PATIENT)
    assert os.getsid(pid_of(tmp_path)) == pid_of(tmp_path)


@pytest.mark.parametrize("change", ["command", "environment", "file"])
def test_it_is_started_anew_when_what_it_was_started_with_changes(processes: Processes, tmp_path: Path, change: str) -> None:
    config = tmp_path / "config"
    config.write_text("1")
    processes.ensure(Program("patient", ["sleep", "600"], files=[config]))
    before = pid_of(tmp_path)
    if change == "file":
        config.write_text("2")
    command = ["sleep", "601"] if change == "command" else ["sleep", "600"]
    environment = {"A": "b"} if change == "environment" else {}
    assert processes.ensure(Program("patient", command, files=[config], environment=environment))
    assert pid_of(tmp_path) != before
    assert processes.is_alive("patient")


def test_a_process_killed_from_outside_is_known_to_be_dead(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(PATIENT)
    handle = os.pidfd_open(pid_of(tmp_path))
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOWAIT)
    os.close(handle)
    assert not processes.is_alive("patient")
    assert processes.ensure(PATIENT)


def test_a_process_that_took_over_the_number_is_not_ended(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(PATIENT)
    record = json.loads((tmp_path / "pids" / "patient.json").read_text())
    stranger = tmp_path / "pids" / "stranger.json"
    stranger.write_text(json.dumps({**record, "start_time": "1"}))
    assert not processes.is_alive("stranger")
    processes.stop("stranger")
    assert processes.is_alive("patient")
    assert processes.names() == ["patient"]


def test_one_that_ignores_the_request_to_end_is_ended_by_force(processes: Processes, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = f"trap '' TERM; echo > {ready}; while :; do sleep 600; done"
    processes.ensure(Program("stubborn", ["sh", "-c", script]))
    ready.read_text()
    processes.stop("stubborn", grace_seconds=0.2)
    assert not processes.is_alive("stubborn")


def test_the_end_of_its_log_says_why_a_program_ended(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(Program("broken", ["sh", "-c", "echo no such flag >&2; exit 2"]))
    os.waitid(os.P_PID, pid_of(tmp_path, "broken"), os.WEXITED | os.WNOWAIT)
    with pytest.raises(ClusterError, match="no such flag"):
        processes.check("broken")


def test_a_program_that_is_not_there_is_named(processes: Processes) -> None:
    with pytest.raises(ClusterError, match="missing cannot be started"):
        processes.ensure(Program("missing", ["/nowhere/missing"]))


def test_a_damaged_record_is_an_error_that_names_the_file(processes: Processes, tmp_path: Path) -> None:
    processes.ensure(PATIENT)
    record = tmp_path / "pids" / "patient.json"
    whole = record.read_text()
    record.write_text(whole[:20])
    with pytest.raises(ClusterError, match=r"patient\.json is damaged"):
        processes.is_alive("patient")
    record.write_text(whole)
