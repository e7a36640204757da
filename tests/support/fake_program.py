"""Stands in for the trainer's worker and prepare programs: speaks the link protocol, trains nothing, needs no torch.

``FAKE_PREPARE_SECONDS`` and ``FAKE_STEP_SECONDS`` are how long preparing and a step take, ``FAKE_STEPS`` is the number of steps;
``FAKE_EXIT`` = ``rank:step:code`` makes a rank fail (a negative code: by signal), ``FAKE_HANG`` = ``rank:step`` makes it hang.
``FAKE_LINGER`` names a file: a rank that is done hangs up, makes it with the suffix ``.begun``, and leaves once it is there.
``FAKE_SAVE_SECONDS`` and ``FAKE_FILE_BYTES`` make saves long and large.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn


class Link:
    """The Unix socket to the supervisor."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.environ["FINETUNE_LINK"])
        self._rest = b""
        self.stop: str | None = None
        self.save = False

    def send(self, message_type: str, /, **fields: Any) -> None:
        self._socket.sendall(json.dumps({"type": message_type, **fields}).encode() + b"\n")

    def poll(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        messages = []
        while select.select([self._socket], [], [], seconds)[0]:
            data = self._socket.recv(65536)
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages += [json.loads(line) for line in lines]
            seconds = 0.0
        for message in messages:
            if message["type"] == "stop":
                self.stop = self.stop or message["trigger"]
            self.save = self.save or message["type"] == "save"
        return messages

    def close(self) -> None:
        self._socket.close()

    def wait_for(self, kind: str) -> None:
        while not any(message["type"] == kind for message in self.poll(0.1)):
            pass


class Group:
    """All-reduce of the highest number over TCP; a lost peer ends the process with 76."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._peers = rank, []
        port = int(os.environ["MASTER_PORT"])
        if world == 1:
            return
        if rank == 0:
            with socket.create_server(("127.0.0.1", port)) as server:
                self._peers = [server.accept()[0] for _ in range(world - 1)]
            return
        while True:
            try:
                self._peers = [socket.create_connection(("127.0.0.1", port))]
                return
            except OSError:
                time.sleep(0.05)

    def highest(self, value: int) -> int:
        try:
            if self._rank:
                self._peers[0].sendall(bytes([value]))
                return self._receive(self._peers[0])
            result = max([value, *(self._receive(peer) for peer in self._peers)])
            for peer in self._peers:
                peer.sendall(bytes([result]))
        except OSError:
            self._lost()
        return result

    def _receive(self, peer: socket.socket) -> int:
        data = peer.recv(1)
        if not data:
            self._lost()
        return data[0]

    def _lost(self) -> NoReturn:
        sys.stdout.write(f"rank {self._rank} lost a peer\n")
        sys.stdout.flush()
        sys.exit(76)


class Clock:
    """Books seconds as a worker's stopwatch does and tells the supervisor (rank 0)."""

    def __init__(self, link: Link, plan: dict[str, Any], rank: int) -> None:
        self._link = link if rank == 0 else None
        self._usage, self._mark = dict(plan["usageBefore"]), float(plan["podStarted"])

    def lap(self, use: str) -> None:
        now = time.monotonic()
        self._usage[use] += now - self._mark
        self._mark = now
        if self._link is not None:
            self._link.send("used", usage=self._usage, until=now)


TRIGGERS = ["", "save", "signal", "stop", "pause"]


def work() -> int:
    """One rank: steps, saves, stops."""
    plan = json.loads(Path(os.environ["FINETUNE_WORKER_PLAN"]).read_text())
    spec = json.loads(Path(plan["runConfig"]).read_text())["spec"]
    rank, local_rank, world = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    link, output = Link(), Path(plan["outputDir"])
    link.send("hello", rank=rank, local_rank=local_rank, pid=os.getpid())
    group = Group(rank, world)
    total, step = int(os.environ.get("FAKE_STEPS", "10")), resumed_step(plan.get("resume"), rank, world)
    if rank == 0:
        pinned = {"contract_version": 1, "dtype": "float32", "strategy": "none", "versions": {"fake": os.environ.get("FAKE_VERSION", "1")}}
        link.send("facts", facts={"dtype": "float32"}, pinned=pinned)
    clock = Clock(link, plan, rank)
    clock.lap("starting")
    say_course(plan, rank, step)
    failure = os.environ.get("FAKE_EXIT", "").split(":")
    while step < total:
        link.poll(float(os.environ.get("FAKE_STEP_SECONDS", "0.05")))
        step += 1
        if len(failure) == 3 and (rank, step) == (int(failure[0]), int(failure[1])):
            return fail(link, int(failure[2]), step)
        clock.lap("replayed" if step <= plan["lostUntilStep"] else "productive")
        link.send("phase", phase="Training", counter=step)
        if f"{rank}:{step}" == os.environ.get("FAKE_HANG"):
            hang()
        if rank == 0:
            report(link, plan, step, total)
        link.poll()
        agreed = TRIGGERS[group.highest(TRIGGERS.index(link.stop or ("save" if link.save else "")))]
        stopping = agreed in ("signal", "stop", "pause") and step < total
        if stopping:
            link.send("stop_agreed", step=step, will_save=True)
        trigger = agreed if stopping else "command" if agreed == "save" else "final" if step == total else "steps"
        if stopping or agreed == "save" or step % spec["checkpoint"]["steps"] == 0 or step == total:
            save(link, group, output, (step, total), (rank, local_rank, world), trigger)
            clock.lap("checkpointing")
            link.send("phase", phase="Training", counter=step)
            link.save = False
        if stopping:
            return 75
    if rank == 0:
        finish(link, output / "final", step)
    group.highest(0)
    link.close()
    if "FAKE_LINGER" in os.environ:
        linger(Path(os.environ["FAKE_LINGER"]))
    return 0


def resumed_step(resume: dict[str, Any] | None, rank: int, world: int) -> int:
    """Step of the checkpoint, whose random state must be this rank's; 0 from scratch."""
    if not resume:
        return 0
    directory = Path(resume["directory"])
    step: int = json.loads((directory / "trainer_state.json").read_text())["global_step"]
    rng = "rng_state.pth" if world == 1 else f"rng_state_{rank}.pth"
    assert (directory / rng).read_text() == f"rng {rank} {step}"
    return step


def finish(link: Link, final: Path, step: int) -> None:
    """Write the result and hand it over."""
    final.mkdir(parents=True, exist_ok=True)
    (final / "adapter_model.safetensors").write_text(f"adapter of step {step}")
    link.send("final", step=step, directory=str(final), kind="lora", source="last", metrics={"loss": 1.0 / step})


def linger(leave: Path) -> None:
    """Take long to clean up after the end of the training, as the libraries do."""
    leave.with_suffix(".begun").touch()
    while not leave.exists():
        time.sleep(0.02)


def say_course(plan: dict[str, Any], rank: int, step: int) -> None:
    """Print where the rank begins and what it leaves out."""
    sys.stdout.write(f"rank {rank} begins at step {step}\n")
    for rewind in plan["rewinds"]:
        sys.stdout.write(f"rank {rank} skips {rewind['skipped']} after step {rewind['step']}\n")
    sys.stdout.flush()


def report(link: Link, plan: dict[str, Any], step: int, total: int) -> None:
    """Tell of a step, in the metrics file and on the link."""
    loss = 1.0 / step
    with Path(plan["metricsFile"]).open("a") as file:
        file.write(json.dumps({"attempt": plan["attempt"], "step": step, "loss": loss}) + "\n")
    numbers = {"loss": loss, "learning_rate": 1e-3, "step_seconds": 0.05, "tokens_seen": step * 100}
    link.send("step", step=step, total_steps=total, epoch=step / total, **numbers)


def save(link: Link, group: Group, output: Path, steps: tuple[int, int], ranks: tuple[int, int, int], trigger: str) -> None:
    """Write what a Trainer would, and hand it over after all ranks have."""
    rank, local_rank, world = ranks
    step, total = steps
    directory = output / f"checkpoint-{step}"
    directory.mkdir(parents=True, exist_ok=True)
    link.send("phase", phase="Saving")
    time.sleep(float(os.environ.get("FAKE_SAVE_SECONDS", "0")))
    (directory / ("rng_state.pth" if world == 1 else f"rng_state_{rank}.pth")).write_text(f"rng {rank} {step}")
    if rank == 0:
        (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        size = int(os.environ.get("FAKE_FILE_BYTES", "2000"))
        for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"):
            (directory / name).write_text(f"{name} {step} " + "x" * size)
    group.highest(0)
    if local_rank == 0:
        link.send(
            "saved",
            step=step,
            total_steps=total,
            epoch=step / total,
            directory=str(directory),
            trigger=trigger,
            metrics={"loss": 1.0 / step},
            **steady(),
        )
        link.wait_for("staged")
    group.highest(0)


def hang() -> None:
    """Wait for what never comes."""
    threading.Event().wait()


def steady() -> dict[str, int]:
    """Up to which step the loss was, where it rises."""
    return {"steady_until": int(os.environ["FAKE_STEADY_UNTIL"])} if "FAKE_STEADY_UNTIL" in os.environ else {}


def fail(link: Link, code: int, step: int) -> int:
    """End as a failing rank does."""
    sys.stdout.write(f"rank {os.environ['RANK']} fails\n")
    sys.stdout.flush()
    if code < 0:
        os.kill(os.getpid(), -code)
    link.send("failed", failure_class="LossDiverged" if code == 42 else "Unknown", message="the loss became NaN", step=step, **steady())
    return code


def prepare() -> int:
    """Copy the rows as they are."""
    plan = json.loads(Path(os.environ["FINETUNE_PREPARE_PLAN"]).read_text())
    sys.stdout.write("preparing\n")
    sys.stdout.flush()
    time.sleep(float(os.environ.get("FAKE_PREPARE_SECONDS", "0")))
    output = Path(plan["outputDir"])
    (output / "train").mkdir(parents=True)
    train_files = [Path(path) for source in plan["trainFiles"] for path in source]
    rows = [line for path in train_files for line in path.read_text().splitlines()]
    link = Link()
    if any("broken" in row for row in rows):
        link.send("failed", failure_class="DataError", message="train.jsonl line 2 is no JSON")
        return 42
    for path in train_files:
        shutil.copy(path, output / "train")
    summary = {
        "trainRows": len(rows),
        "evalRows": 0,
        "samples": [{"text": row} for row in rows[:5]],
        "warnings": {"DatasetSmall": "few rows"},
    }
    (output / "prepared.json").write_text(json.dumps(summary))
    return 0


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    sys.exit(work() if sys.argv[1] == "worker" else prepare())
