"""Trainer pods as processes of this machine: real supervisors, fake workers, one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.contract import env
from finetune_api.contract.run_config import JobIdentity, ProgressConfig, RunConfig, StoreConfig, Topology
from finetune_api.contract.termination import TerminationMessage
from finetune_api.resolve import resolve
from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.opening import open_store
from tests.support.jobs import merge
from tests.support.models import model_files
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SPEC: dict[str, Any] = {
    "model": {"uri": "pvc://models/tiny"},
    "dataset": {"uri": "configmap://data/train.jsonl"},
    "training": {"batchSize": 2, "gradAccumSteps": 2},
    "resources": {"device": "cpu"},
    "checkpoint": {"steps": 5},
    "pausePolicy": {"graceSeconds": 30, "timeoutSeconds": 60},
}


def write_model(directory: Path) -> Path:
    """A directory that looks like a model, a few hundred bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in model_files().items():
        (directory / name).write_bytes(content)
    return directory


@dataclass
class Pod:
    """One running supervisor."""

    process: subprocess.Popen[str]
    work_dir: Path
    log: Path

    def wait(self, timeout: float = 60) -> int:
        """Exit code."""
        return self.process.wait(timeout)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a node that dies: the supervisor and everything it started, at once."""
        for pid in [*self.children(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)

    def children(self) -> list[int]:
        """Processes started by the supervisor."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids: set[int] = set()
        for task in text.parents[1].glob("*/children"):
            pids |= {int(pid) for pid in task.read_text().split()}
        return sorted(pids)

    @property
    def message(self) -> TerminationMessage:
        """What it left behind."""
        return TerminationMessage.model_validate_json((self.work_dir / "termination").read_bytes())

    def output(self) -> str:
        """All it printed."""
        return self.log.read_text()


@dataclass
class Cluster:
    """A job on this machine: its directories, its store, its runs."""

    directory: Path
    store_config: StoreConfig
    secret_dir: Path
    spec: dict[str, Any] = field(default_factory=lambda: dict(SPEC))
    replicas: int = 1
    processes: int = 1
    progress_url: str | None = None
    run_number: int = 0
    pods: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        write_model(self.directory / "pvc/models/tiny")
        data = self.directory / "configmap/data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        (self.directory / "token").write_text("the-token")

    @property
    def store(self) -> Store:
        """The job's store as the test sees it."""
        return open_store(self.store_config, SecretFiles(self.secret_dir, "finetune-storage")).with_patience(20)

    def start_run(self, changes: Mapping[str, Any] | None = None, /, **fakes: str) -> list[Pod]:
        """Start all pods of the next run; ``fakes`` are variables of the fake worker."""
        self.run_number += 1
        group_port, master_port = free_port(), free_port()
        spec = resolve(merge(self.spec, changes or {})).spec
        config = RunConfig(
            contract_version=1,
            job=JobIdentity(name="job", namespace="team", uid="uid-1"),
            run=self.run_number,
            spec=spec,
            topology=Topology(
                replicas=self.replicas, processes_per_replica=self.processes, device="cpu", master_addr="localhost", master_port=master_port
            ),
            store=self.store_config,
            progress=ProgressConfig(url=self.progress_url, interval_seconds=0.2) if self.progress_url else None,
        )
        path = self.directory / f"run-{self.run_number}.json"
        path.write_text(config.to_json())
        started = [self._start_pod(path, index, group_port, fakes) for index in range(self.replicas)]
        self.pods += started
        return started

    def close(self) -> None:
        """End what still runs."""
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.kill()

    def _start_pod(self, config: Path, index: int, group_port: int, fakes: Mapping[str, str]) -> Pod:
        work = self.directory / f"run-{self.run_number}-pod-{index}"
        work.mkdir()
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            env.ENV_RUN_CONFIG: str(config),
            env.ENV_WORK_DIR: str(work / "work"),
            env.ENV_CACHE_DIR: str(work / "cache"),
            env.ENV_SECRETS_DIR: str(self.secret_dir.parent),
            env.ENV_TERMINATION_MESSAGE: str(work / "termination"),
            env.ENV_PVC_DIR: str(self.directory / "pvc"),
            env.ENV_CONFIGMAP_DIR: str(self.directory / "configmap"),
            env.ENV_METRICS_PORT: str(free_port()),
            env.ENV_GROUP_PORT: str(group_port),
            env.ENV_POD_NAME: f"job-r{self.run_number}-{index}",
            env.ENV_POD_UID: f"pod-{self.run_number}-{index}",
            env.ENV_NODE_NAME: "node1",
            env.ENV_POD_INDEX: str(index),
            "TEST_TOKEN": str(self.directory / "token"),
            "TEST_CA": str(self.directory / "ca.crt"),
            **fakes,
        }
        log = work / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.support.pod_program"],
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return Pod(process, work, log)
