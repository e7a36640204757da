"""Processes, their environment, their output, the socket they report on."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import JobIdentity, Topology
from finetune_trainer.protocol import Failed, Hello, Saved, SaveNow, Staged, Stop, SupervisorMessage, WorkerMessage
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.events import WorkerExited
from finetune_trainer.supervisor.link import LinkServer
from finetune_trainer.supervisor.logs import LogArchive, configure_logging
from finetune_trainer.supervisor.metrics import serve_metrics
from finetune_trainer.supervisor.worker_env import available_cpus, process_environment, worker_environment
from finetune_trainer.supervisor.workers import Process, WorkerGroup
from tests.support.ports import free_port
from tests.support.waiting import eventually

TOPOLOGY = Topology(replicas=2, processes_per_replica=2, device="cpu", master_addr="job-r1-0.job-r1", master_port=29500)


def test_ranks_get_torchruns_environment(tmp_path: Path) -> None:
    """Design §5: rank = pod index x processes + local rank; MASTER_ADDR = pod 0's DNS name."""
    common = process_environment({"PATH": "/bin"}, work_dir=tmp_path, link=tmp_path / "link.sock", threads=4, device="cpu")
    made = worker_environment(common, topology=TOPOLOGY, pod=1, local_rank=1, plan=tmp_path / "plan.json")
    wanted = {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "job-r1-0.job-r1",
        "MASTER_PORT": "29500",
        "OMP_NUM_THREADS": "4",
        "OMP_WAIT_POLICY": "PASSIVE",
        "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
        "FINETUNE_WORKER_PLAN": str(tmp_path / "plan.json"),
    }
    assert wanted.items() <= made.items()
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR"):
        assert made[name].startswith(str(tmp_path)), f"{name}: the root file system is read-only"


@pytest.mark.parametrize(("device", "own", "level"), [("cpu", {}, None), ("gpu", {}, "WARN"), ("gpu", {"NCCL_DEBUG": "INFO"}, "INFO")])
def test_nccl_says_why_it_fails(tmp_path: Path, device: str, own: dict[str, str], level: str | None) -> None:
    """GPU nodes: NCCL's errors reach the log; what the job sets itself is kept."""
    made = process_environment(own, work_dir=tmp_path, link=tmp_path / "link.sock", threads=4, device=device)
    assert made.get("NCCL_DEBUG") == level


@pytest.mark.parametrize(("text", "cpus"), [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1), ("nonsense", None)])
def test_cpus_follow_the_cgroup(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    everything = len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path / "cpu.max") == min(cpus or everything, everything)
    assert available_cpus(tmp_path / "absent") == everything


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[LogArchive]:
    made = LogArchive(tmp_path / "logs/pod-0.log")
    yield made
    made.close()


def start(code: str, archive: LogArchive, tmp_path: Path) -> Process:
    return Process([sys.executable, "-c", code], dict(os.environ), cwd=tmp_path, label="rank 0", rank=0, archive=archive)


def test_last_lines_and_archive(archive: LogArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """T-05."""
    caplog.set_level(logging.INFO)
    structured = 'print(\'{"level": "warning", "message": "structured"}\')'
    code = f'for i in range(300): print("line", i)\n{structured}\nprint("a\\rb")'
    process = start(code, archive, tmp_path)
    assert process.wait() == 0
    assert len(process.last_lines) == 200
    assert list(process.last_lines)[-3:] == ["structured", "a", "b"]
    assert archive.content().startswith(b"[rank 0] line 0\n")
    assert ("worker", logging.WARNING, "structured") in caplog.record_tuples


def test_children_of_a_dead_worker_are_ended(archive: LogArchive, tmp_path: Path) -> None:
    """Data loader workers must not keep a GPU or the pod."""
    code = 'import subprocess, os; p = subprocess.Popen(["sleep", "600"]); print(p.pid, flush=True); os._exit(3)'
    process = start(code, archive, tmp_path)
    assert process.wait() == 3
    child = int(process.last_lines[-1])
    eventually(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text(), what="child ended")


def test_exits_are_reported_with_code_and_signal(archive: LogArchive, tmp_path: Path) -> None:
    """T-06."""
    exits: list[WorkerExited] = []
    group = WorkerGroup(exits.append)
    environments = [{**os.environ, "RANK": str(rank)} for rank in range(2)]
    code = "import os, time\nif os.environ['RANK'] == '0': raise SystemExit(42)\ntime.sleep(600)"
    group.start([sys.executable, "-c", code], environments, cwd=tmp_path, archive=archive)
    eventually(lambda: exits, what="first exit")
    assert (exits[0].local_rank, exits[0].code) == (0, 42)
    group.record(exits[0])
    assert not group.are_done
    group.terminate([0, 1])
    assert group.terminated == {1}
    eventually(lambda: len(exits) == 2, what="second exit")
    assert exits[1].code == -signal.SIGTERM


def test_a_full_archive_keeps_its_end(tmp_path: Path) -> None:
    archive = LogArchive(tmp_path / "log", limit=1000)
    for number in range(200):
        archive.write(f"line {number}")
    content = archive.content()
    archive.close()
    assert len(content) <= 1100
    assert content.endswith(b"line 199\n")
    assert content.startswith(b"... earlier lines dropped ...\nline ")


def test_logs_are_json_with_run_attempt_and_pod() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        formatter = configure_logging("info", run=3, pod=1, stream=stream)
        formatter.attempt = 7
        logging.getLogger("some.module").info("hello %s", "world", extra={"rank": 2})
        logging.getLogger("some.module").debug("not shown")
    finally:
        root.handlers[:], root.level = handlers, level
    entry = json.loads(stream.getvalue())
    assert (entry["run"], entry["attempt"], entry["pod"], entry["rank"], entry["message"]) == (3, 7, 1, 2, "hello world")


class Worker:
    """A worker's end of the link."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")

    def send(self, message: WorkerMessage) -> None:
        self.socket.sendall(message.to_json().encode() + b"\n")

    def read(self) -> dict[str, object]:
        line: dict[str, object] = json.loads(self.lines.readline())
        return line

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def received() -> list[tuple[int | None, WorkerMessage]]:
    return []


@pytest.fixture
def link(tmp_path: Path, received: list[tuple[int | None, WorkerMessage]]) -> Iterator[LinkServer]:
    def on_message(rank: int | None, message: WorkerMessage) -> SupervisorMessage | None:
        received.append((rank, message))
        return Staged(step=message.step) if isinstance(message, Saved) else None

    server = LinkServer(tmp_path, on_message)
    yield server
    server.close()


def test_link_carries_messages_both_ways(link: LinkServer, received: list[tuple[int | None, WorkerMessage]], tmp_path: Path) -> None:
    worker = Worker(link.path)
    worker.socket.sendall(b"no json\n")
    worker.send(Hello(rank=3, local_rank=1, pid=1))
    worker.send(Saved(step=5, total_steps=9, epoch=0.5, directory=tmp_path, trigger="steps"))
    assert worker.read() == {"type": "staged", "step": 5}
    assert [rank for rank, _ in received] == [3, 3]
    assert link.met == {3}
    link.broadcast(SaveNow())
    assert worker.read() == {"type": "save"}
    worker.close()
    assert link.met == {3}


def test_a_late_worker_is_told_to_stop(link: LinkServer) -> None:
    link.broadcast(Stop(trigger="pause"))
    worker = Worker(link.path)
    worker.send(Hello(rank=0, local_rank=0, pid=1))
    assert worker.read() == {"type": "stop", "trigger": "pause"}
    worker.close()


def test_what_a_process_says_last_is_heard_before_its_end_is_known(archive: LogArchive, tmp_path: Path) -> None:
    """A class of failure that came after the exit code would be Unknown, and tried again."""
    may_go_on, received = threading.Event(), list[WorkerMessage]()

    def on_message(_rank: int | None, message: WorkerMessage) -> None:
        assert may_go_on.wait(60)
        received.append(message)

    server = LinkServer(tmp_path, on_message)
    last_words = Failed(failure_class=FailureClass.DATA, message="train.jsonl, line 2").to_json()
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(server.path)!r}); s.sendall({last_words!r}.encode() + b'\\n')"
    command = [sys.executable, "-c", code]
    process = Process(command, dict(os.environ), cwd=tmp_path, label="prepare", rank=None, archive=archive)
    waiting = threading.Thread(target=process.wait, args=(server,))
    waiting.start()
    eventually(lambda: process.code is not None, within=60, what="the process has ended")
    assert waiting.is_alive()
    assert received == []
    may_go_on.set()
    waiting.join(60)
    assert [message.message for message in received if isinstance(message, Failed)] == ["train.jsonl, line 2"]
    server.close()


def test_a_long_directory_still_gets_a_socket(tmp_path: Path) -> None:
    """The kernel's limit for the path of a Unix socket is 108 bytes."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    server = LinkServer(deep, lambda *_: None)
    worker = Worker(server.path)
    worker.send(Hello(rank=0, local_rank=0, pid=1))
    eventually(lambda: server.met == {0}, what="met")
    worker.close()
    server.close()


def test_a_taken_metrics_port_is_no_failure() -> None:
    with socket.create_server(("", 0)) as taken:
        job = JobIdentity(name="job", namespace="team", uid="uid")
        assert serve_metrics(Board(run=1), job, taken.getsockname()[1]) is None
    assert serve_metrics(Board(run=1), job, free_port())
