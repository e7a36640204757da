"""A server on this machine, for what a local run has trained. It outlives the command that started it, until nobody asks any more."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.base import ContractModel
from finetune_api.contract.serve import ServeConfig
from finetune_cli.asking import UnreachableError, health_of
from finetune_cli.errors import CliError
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.local.observe import read_artifacts
from finetune_cli.local.processes import find_trainer, free_ports, share_machine
from finetune_cli.local.run import read_termination
from finetune_cli.serving import Asked
from finetune_cli.store import DirectoryStore


class RunningServer(ContractModel):
    """What is known of a server that was started."""

    pid: int
    port: int


class LocalServer:
    """``finetune-trainer serve`` as a process of this machine."""

    def __init__(self, place: LocalDirectory, asked: Asked) -> None:
        """``place`` holds a run.

        Raises:
            CliError: it holds none, or the program of a cluster's administrators.
        """
        if not place.last_run:
            raise CliError(f"{place.root} holds no run", advice="Train there first: kubectl finetune run-local --dir.")
        self._place, self._asked = place, asked
        kind = "gpu" if asked.gpu else "cpu"
        self._root = servers_root(place) / f"{asked.form}-{asked.checkpoint or 'result'}-{kind}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start the process. False: one that was started earlier still answers.

        Raises:
            CliError: there is nothing to ask yet.
        """
        if _answers(self._root):
            return False
        if self._asked.checkpoint is None and read_artifacts(DirectoryStore(self._place.store)).final_uri is None:
            raise CliError(f"the run in {self._place.root} has no result to ask", advice="A checkpoint can be asked with --checkpoint.")
        self._root.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        config = ServeConfig(
            contract_version=CONTRACT_VERSION,
            run=self._place.read_config(self._place.last_run),
            form=self._asked.form,
            checkpoint=self._asked.checkpoint,
            device="gpu" if self._asked.gpu else "cpu",
            port=port,
        )
        (self._root / "config.json").write_text(config.to_json(), encoding="utf-8")
        own = {
            env.ENV_RUN_CONFIG: self._root / "config.json",
            env.ENV_WORK_DIR: self._root / "work",
            env.ENV_CACHE_DIR: self._place.cache,
            env.ENV_SECRETS_DIR: self._place.secrets,
            env.ENV_PVC_DIR: self._place.claims,
            env.ENV_TERMINATION_MESSAGE: self._termination,
        }
        self._termination.unlink(missing_ok=True)
        with (self._root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [find_trainer(), "serve"],
                env={**share_machine(1), **os.environ, **{name: str(path) for name, path in own.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self._root / "server.json").write_text(RunningServer(pid=self._process.pid, port=port).to_json(), encoding="utf-8")
        return True

    def waits_for(self) -> str:
        """Nothing: it may be tried at once.

        Raises:
            CliError: the process has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            left = read_termination(self._termination)
            said = left.message if left is not None else f"it ended with code {self._process.returncode}"
            raise CliError(f"the server ended: {said}", advice=f"Its log is {self._root / 'log'}.")
        if self._process is None and not _answers(self._root):
            raise CliError("the server has ended", advice="The same command starts it again.")
        return ""

    @contextmanager
    def reached(self) -> Iterator[str]:
        """Its address."""
        yield _address(_read(self._root))

    @property
    def _termination(self) -> Path:
        return self._root / "termination.json"


def servers_root(place: LocalDirectory) -> Path:
    """Directories of all servers of a local run."""
    return place.root / "servers"


def stop_local_servers(place: LocalDirectory) -> list[str]:
    """End all servers of a local run that still answer; returns their names."""
    ended = []
    for root in sorted(path.parent for path in servers_root(place).glob("*/server.json")):
        if _answers(root):  # so its process is one of ours
            os.kill(_read(root).pid, signal.SIGTERM)
            ended.append(root.name)
    return ended


def _answers(root: Path) -> bool:
    if not (root / "server.json").is_file():
        return False
    try:
        health_of(_address(_read(root)))
    except UnreachableError:
        return False
    return True


def _read(root: Path) -> RunningServer:
    return RunningServer.model_validate_json((root / "server.json").read_bytes())


def _address(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"
