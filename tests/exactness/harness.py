"""A supervisor for tests: it prepares rows, starts workers, speaks the real link, and keeps every checkpoint as the store would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.contract.store import Manifest, Pinned, Rewind
from finetune_api.resolve import resolve
from finetune_api.strategies import effective_strategy
from finetune_trainer.prepare.run import prepare
from finetune_trainer.protocol import (
    ENV_LINK,
    ENV_WORKER_PLAN,
    WORKER_MESSAGES,
    Evaluated,
    Failed,
    FinalSaved,
    PreparePlan,
    ResumePoint,
    Saved,
    SaveNow,
    Staged,
    StepReport,
    Stop,
    StopAgreed,
    WorkerMessage,
    WorkerPlan,
)
from finetune_trainer.vision import has_vision, read_config
from tests.support.jobs import merge
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
WORKER = "finetune_trainer.worker.__main__"
DATA = ROOT / "examples/data/kubernetes-sft.jsonl"
BASE: dict[str, Any] = {
    "model": {"uri": "s3://finetune/models/tiny"},
    "dataset": {"uri": "configmap://sft/train.jsonl", "maxSamples": 96, "numWorkers": 0},
    "adapter": {"rank": 4, "targetModules": ["all-linear"]},
    "training": {
        "batchSize": 2,
        "gradAccumSteps": 2,
        "maxSeqLength": 128,
        "learningRate": 2e-3,
        "maxSteps": 12,
        "gradientCheckpointing": False,
    },
    "resources": {"device": "cpu"},
    "checkpoint": {"steps": 1000},
    "logging": {"steps": 1},
}
T = TypeVar("T")
Hook = Callable[["Attempt", int, WorkerMessage], None]
"""Called for each message of a rank; may send commands or signals to see what happens."""


class Zygote:
    """Forks workers from a process that has paid for the imports."""

    def __init__(self, log: Path, hidden: Sequence[str] = ("wandb", "deepspeed")) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HF_MODULES_CACHE": str(log.parent / "modules"),
        }
        command = [sys.executable, "-m", "tests.exactness.zygote", *hidden]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment
            )
        self._changed = threading.Condition()
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        self._spawning = threading.Lock()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._wait_started(1)

    def spawn(self, environment: Mapping[str, str], log: Path, *, module: str = WORKER, max_file_bytes: int | None = None) -> int:
        """Start a worker, or another module with a ``main()``; returns its pid."""
        request = {"module": module, "env": dict(environment), "log": str(log), "max_file_bytes": max_file_bytes}
        assert self._process.stdin is not None
        with self._spawning:
            wanted = len(self._started) + 1
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._wait_started(wanted)

    def wait(self, pid: int, seconds: float) -> int:
        """Return a worker's exit code (negative: signal)."""
        with self._changed:
            assert self._changed.wait_for(lambda: pid in self._codes, seconds), f"worker {pid} did not end within {seconds} s"
            return self._codes[pid]

    def close(self) -> None:
        """End the zygote."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)

    def _wait_started(self, count: int) -> int:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._started) >= count, 600), "the zygote does not answer"
            return self._started[count - 1]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                message = json.loads(line)
                with self._changed:
                    if "code" in message:
                        self._codes[message["pid"]] = message["code"]
                    else:
                        self._codes.pop(message["pid"], None)  # of an earlier worker with the same number
                        self._started.append(message["pid"])
                    self._changed.notify_all()


@dataclass
class Result:
    """How an attempt went."""

    codes: list[int]
    messages: list[tuple[int, WorkerMessage]]
    metrics: dict[int, dict[str, Any]]
    """Step -> line of the metrics file."""
    checkpoints: dict[int, Path]
    manifests: dict[int, Manifest]
    final: Path | None
    log: str

    def of(self, kind: type[T]) -> list[T]:
        """All messages of a kind, in the order they came."""
        return [message for _, message in self.messages if isinstance(message, kind)]


@dataclass
class Attempt:
    """One start of a rank group."""

    run: Run
    number: int
    world_size: int
    resume: ResumePoint | None
    hook: Hook
    directory: Path
    rewinds: list[Rewind] = field(default_factory=list)
    manifests: dict[int, Manifest] = field(default_factory=dict)
    messages: list[tuple[int, WorkerMessage]] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    _connections: dict[int, socket.socket] = field(default_factory=dict)

    def stop(self, trigger: str = "pause", rank: int = 0) -> None:
        """Tell one rank to stop."""
        self._send(rank, Stop.model_validate({"trigger": trigger}))

    def save(self, rank: int = 0) -> None:
        """Ask one rank for a checkpoint."""
        self._send(rank, SaveNow())

    def signal(self, number: int, rank: int = 0) -> None:
        """Send a signal to one rank."""
        os.kill(self.pids[rank], number)

    def execute(self, zygote: Zygote, seconds: float) -> Result:
        """Run the group to its end."""
        self.directory.mkdir(parents=True)
        (self.directory / "output").mkdir()
        link = self.directory / "link.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(link))
        server.listen(self.world_size)
        plan = self._plan()
        (self.directory / "plan.json").write_text(plan.to_json())
        log = self.directory / "log"
        port = free_port()
        threads = []
        for rank in range(self.world_size):
            environment = {
                ENV_WORKER_PLAN: str(self.directory / "plan.json"),
                ENV_LINK: str(link),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.world_size),
                "LOCAL_WORLD_SIZE": str(self.world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
                **self.run.environment,
            }
            self.pids.append(zygote.spawn(environment, log, module=self.run.worker, max_file_bytes=self.run.max_file_bytes))
        for _ in range(self.world_size):
            connection, _ = server.accept()
            threads.append(threading.Thread(target=self._serve, args=(connection,)))
            threads[-1].start()
        codes = [zygote.wait(pid, seconds) for pid in self.pids]
        for thread in threads:
            thread.join(10)
        server.close()
        return self._result(plan, codes, log)

    def _plan(self) -> WorkerPlan:
        run = self.run
        return WorkerPlan(
            run_config=run.write_config(self.world_size, self.directory / "config.json"),
            attempt=self.number,
            model_dir=run.model,
            tokenizer_dir=run.model,
            prepared_dir=run.prepared,
            resume=self.resume,
            rewinds=self.rewinds,
            output_dir=self.directory / "output",
            best_dir=run.best_dir(self.resume),
            metrics_file=self.directory / "metrics.jsonl",
            tensorboard_dir=self.directory / "tensorboard",
            pinned=run.pinned,
            **run.companions,
        )

    def _serve(self, connection: socket.socket) -> None:
        rank = -1
        # A worker killed before it read all that was sent to it resets its connection: the end of what it says, as to the supervisor.
        with contextlib.suppress(ConnectionResetError), connection, connection.makefile("rb") as lines:
            for line in lines:
                message = WORKER_MESSAGES.validate_json(line)
                if message.type == "hello":
                    rank = message.rank
                    self._connections[rank] = connection
                self.messages.append((rank, message))
                if isinstance(message, Saved):
                    self._keep(message)
                    self._send(rank, Staged(step=message.step))
                self.hook(self, rank, message)

    def _send(self, rank: int, message: Stop | SaveNow | Staged) -> None:
        # One that has left meanwhile shows it by its exit code, as to the supervisor.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connections[rank].sendall(message.to_json().encode() + b"\n")

    def _keep(self, saved: Saved) -> None:
        """Copy a checkpoint aside and write its manifest, as the supervisor and the store do."""
        shutil.copytree(saved.directory, self.run.store / f"a{self.number}" / saved.directory.name)
        self.manifests[saved.step] = Manifest(
            contract_version=CONTRACT_VERSION,
            attempt=self.number,
            step=saved.step,
            total_steps=saved.total_steps,
            epoch=saved.epoch,
            created_at="2026-01-01T00:00:00Z",
            trigger=saved.trigger,
            kind=self.run.config(self.world_size).spec.adapter.type,
            strategy=effective_strategy(self.run.config(self.world_size).spec.distributed.strategy, None, self.world_size),
            world_size=self.world_size,
            pods=1,
            global_batch=self.run.global_batch(self.world_size),
            files=[],
            best=saved.best,
            early_stopping=saved.early_stopping,
            evaluation_due=saved.evaluation_due,
            metrics=saved.metrics,
            usage=saved.usage,
        )

    def _result(self, plan: WorkerPlan, codes: list[int], log: Path) -> Result:
        lines = plan.metrics_file.read_text().splitlines() if plan.metrics_file.exists() else []
        final = next((message.directory for _, message in self.messages if isinstance(message, FinalSaved)), None)
        self.run.manifests[self.number] = self.manifests
        return Result(
            codes=codes,
            messages=self.messages,
            metrics={row["step"]: row for row in map(json.loads, lines)},
            checkpoints={step: self.run.store / f"a{self.number}" / f"checkpoint-{step}" for step in self.manifests},
            manifests=self.manifests,
            final=final,
            log=log.read_text() if log.exists() else "",
        )


class Run:
    """A job with its prepared rows and its store; attempts are started one after the other."""

    def __init__(  # what a test job is made of
        self, zygote: Zygote, directory: Path, model: Path, spec: Mapping[str, Any], prepared: Path | None = None, data: Path = DATA
    ) -> None:
        self.directory, self.model = directory, model
        self.spec = merge(BASE, spec)
        self.store = directory / "store"
        self.worker = WORKER
        """Module that is a worker; another one may add a fault to it."""
        self.environment: dict[str, str] = {}
        """Further variables of the workers."""
        self.max_file_bytes: int | None = None
        """Longer files cannot be written: what a full disk looks like."""
        self.manifests: dict[int, dict[int, Manifest]] = {}
        """Attempt -> step -> manifest."""
        self.pinned = Pinned(contract_version=CONTRACT_VERSION)
        self.companions: dict[str, Any] = {}
        """Fields of the plan for what a method needs beside model and data."""
        self._zygote = zygote
        self._attempts = 0
        directory.mkdir(parents=True)
        self.prepared = prepared or self._prepare(data)

    def edit(self, spec: Mapping[str, Any]) -> None:
        """Change the spec between attempts."""
        self.spec = merge(self.spec, spec)

    def config(self, world_size: int) -> RunConfig:
        """The run config of a group."""
        topology = Topology(replicas=1, processes_per_replica=world_size, device="cpu", master_addr="localhost", master_port=0)
        return RunConfig(
            contract_version=CONTRACT_VERSION,
            job=JobIdentity(name="job", namespace="default", uid="uid"),
            run=1,
            spec=resolve(self.spec).spec,
            topology=topology,
            store=StoreConfig(uri=f"file://{self.store}"),
        )

    def write_config(self, world_size: int, path: Path) -> Path:
        """Write the run config."""
        path.write_text(self.config(world_size).to_json())
        return path

    def global_batch(self, world_size: int) -> int:
        """Rows per optimizer step."""
        training = self.config(world_size).spec.training
        return training.batch_size * training.grad_accum_steps * world_size

    def attempt(
        self,
        world_size: int = 1,
        *,
        resume: int | None = None,
        directory: Path | None = None,
        hook: Hook = lambda attempt, rank, message: None,
        seconds: float = 120,
        rewinds: Sequence[Rewind] = (),
    ) -> Result:
        """Start the group from scratch, from the newest checkpoint of a step, or from a plain Trainer directory."""
        self._attempts += 1
        point = ResumePoint(directory=directory) if directory is not None else None
        if resume is not None:
            number = max(attempt for attempt, manifests in self.manifests.items() if resume in manifests)
            fetched = self.directory / f"fetched-{self._attempts}"
            shutil.copytree(self.store / f"a{number}" / f"checkpoint-{resume}", fetched)
            point = ResumePoint(directory=fetched, manifest=self.manifests[number][resume])
        attempt = Attempt(self, self._attempts, world_size, point, hook, self.directory / f"attempt-{self._attempts}", list(rewinds))
        return attempt.execute(self._zygote, seconds)

    def best_dir(self, resume: ResumePoint | None) -> Path | None:
        """The best checkpoint so far, as fetched from the store."""
        best = resume.manifest.best if resume is not None and resume.manifest is not None else None
        return self.store / f"a{best.attempt}" / f"checkpoint-{best.step}" if best is not None else None

    def _prepare(self, data: Path) -> Path:
        output = self.directory / "prepared"
        config = self.write_config(1, self.directory / "prepare.json")
        prepare(
            PreparePlan(
                run_config=config,
                tokenizer_dir=self.model,
                train_files=[[data]],
                eval_files=[],
                output_dir=output,
                dataset_digest="d",
                has_vision=has_vision(read_config(self.model)),
            ),
            lambda rows: None,
        )
        return output


EXACT = ("loss", "grad_norm", "learning_rate", "samples", "tokens", "token_accuracy", "metrics")
"""Values of a step that must not depend on interruptions."""


def steps_of(*results: Result) -> dict[int, dict[str, Any]]:
    """Step -> exact values, of one run over its attempts: the last attempt that trained a step counts."""
    return {step: {name: row[name] for name in EXACT} for result in results for step, row in result.metrics.items()}


def logged(*results: Result) -> dict[int, tuple[float, float | None]]:
    """Step -> loss and norm as logged every ``logging.steps``."""
    return {m.step: (m.loss, m.grad_norm) for result in results for m in result.of(StepReport) if m.loss is not None}


def evaluations(*results: Result) -> dict[int, float]:
    """Step -> eval_loss."""
    return {message.step: message.metrics["eval_loss"] for result in results for message in result.of(Evaluated)}


def weights(result: Result) -> bytes:
    """Bytes of the final adapter or model."""
    assert result.final is not None, result.log
    (file,) = [*result.final.glob("adapter_model.safetensors"), *result.final.glob("model.safetensors")]
    return file.read_bytes()


def stop_at(step: int, trigger: str = "pause") -> Hook:
    """Tell rank 0 to stop when it reports a step."""

    def hook(attempt: Attempt, rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == step:
            attempt.stop(trigger)

    return hook


def stopped_step(result: Result) -> int:
    """The step a group agreed to stop at."""
    (agreed,) = {message.step for message in result.of(StopAgreed)}
    return agreed


def failure(result: Result) -> Failed:
    """The first failure reported."""
    return result.of(Failed)[0]
