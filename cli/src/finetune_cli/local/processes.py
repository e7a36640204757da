"""The pods of a local run: one supervisor process each."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from finetune_api.contract import env
from finetune_api.contract.run_config import RunConfig
from finetune_cli.errors import CliError
from finetune_cli.local.directory import LocalDirectory

TRAINER: Final = "finetune-trainer"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a run: what it is given and where it leaves its traces."""

    index: int
    metrics_port: int
    log: Path
    """Everything it prints."""
    termination: Path
    """Its last word, a :class:`finetune_api.contract.termination.TerminationMessage`."""
    environment: Mapping[str, str]


def find_trainer() -> str:
    """Path of ``finetune-trainer``: of this environment, else on PATH.

    Raises:
        CliError: it is not installed.
    """
    beside = Path(sys.executable).parent / TRAINER
    found = str(beside) if beside.is_file() else shutil.which(TRAINER)
    if found is None:
        raise CliError(
            f"{TRAINER} is not installed in this environment", advice="Install the package finetune-trainer (uv sync --all-packages)."
        )
    return found


def plan_pods(config: RunConfig, directory: LocalDirectory, environment: Mapping[str, str]) -> list[Pod]:
    """What each pod of a run is given. Ports are free ones of this machine."""
    count = config.topology.replicas
    group_port, *metrics_ports = free_ports(count + 1)
    shared = share_machine(config.topology.world_size)
    pods = []
    for index, metrics_port in enumerate(metrics_ports):
        work = directory.run(config.run) / f"pod-{index}"
        termination = directory.run(config.run) / f"pod-{index}.termination.json"
        own = {
            env.ENV_RUN_CONFIG: str(directory.config_path(config.run)),
            env.ENV_WORK_DIR: str(work),
            env.ENV_CACHE_DIR: str(directory.cache),
            env.ENV_SECRETS_DIR: str(directory.secrets),
            env.ENV_PVC_DIR: str(directory.claims),
            env.ENV_TERMINATION_MESSAGE: str(termination),
            env.ENV_METRICS_PORT: str(metrics_port),
            env.ENV_GROUP_PORT: str(group_port),
            env.ENV_POD_INDEX: str(index),
            env.ENV_POD_NAME: f"{config.job.name}-r{config.run}-{index}",
            env.ENV_POD_NAMESPACE: config.job.namespace,
            env.ENV_NODE_NAME: socket.gethostname(),
        }
        pods.append(Pod(index, metrics_port, directory.run(config.run) / f"pod-{index}.log", termination, {**shared, **environment, **own}))
    return pods


def share_machine(ranks: int) -> dict[str, str]:
    """Settings for computing beside others: no more threads than cores, and waiting threads that sleep.

    Threads that spin while they wait slow each other down many times over as soon as anything else wants a core.
    """
    return {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks)), "OMP_WAIT_POLICY": "PASSIVE"}


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Processes:
    """The supervisors of all pods of a run. Leave the context to be sure that none is left."""

    def __init__(self, command: Sequence[str], pods: Sequence[Pod]) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._command = list(command)
        self._pods = pods

    def __enter__(self) -> Self:
        for pod in self._pods:
            Path(pod.environment[env.ENV_WORK_DIR]).mkdir(parents=True, exist_ok=True)
            with pod.log.open("wb") as log:
                # A session of its own: Ctrl-C of the terminal reaches this program, which passes it on once.
                self._running.append(
                    subprocess.Popen(
                        self._command,
                        env=dict(pod.environment),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for process in self._running:
            process.wait()

    def terminate(self) -> None:
        """Ask every supervisor to save and stop."""
        for process in self._running:
            process.terminate()

    def kill(self) -> None:
        """End all of them, and what they have started, at once."""
        for process in self._running:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait a while for the end of all; whether it came."""
        for process in self._running:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return True

    @property
    def exit_codes(self) -> list[int | None]:
        """Exit code of each pod, None while it runs."""
        return [process.poll() for process in self._running]
