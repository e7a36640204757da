"""The directory of a local run: store, caches, and what each run was told."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetune_api.contract.env import (
    HF_ENDPOINT_KEY,
    HF_TOKEN_KEY,
    MIN_S3_KEYS,
    OPTIONAL_S3_KEYS,
    SECRET_DATASET,
    SECRET_HUGGINGFACE,
    SECRET_MODEL,
    SECRET_STORE,
)
from finetune_api.contract.run_config import RunConfig
from finetune_cli.errors import CliError

SECRETS_FROM_ENVIRONMENT: Final = {
    SECRET_HUGGINGFACE: (HF_TOKEN_KEY, HF_ENDPOINT_KEY),
    **dict.fromkeys((SECRET_STORE, SECRET_MODEL, SECRET_DATASET), (*MIN_S3_KEYS, *OPTIONAL_S3_KEYS)),
}
"""Credential directory of a pod -> variables of this shell that fill it."""


@dataclass(frozen=True, slots=True)
class LocalDirectory:
    """Layout of the directory. It belongs to one job."""

    root: Path

    @property
    def store(self) -> Path:
        """What would be the job's prefix in the bucket."""
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """Models and prepared rows, shared by all pods."""
        return self.root / "cache"

    @property
    def claims(self) -> Path:
        """Stands for all mounted claims; mapped sources are linked here."""
        return self.root / "claims"

    @property
    def secrets(self) -> Path:
        """Credentials taken from the environment."""
        return self.root / "secrets"

    def run(self, number: int) -> Path:
        """Everything of one run: config, logs, working directories of its pods."""
        return self.root / "runs" / str(number)

    def config_path(self, number: int) -> Path:
        """The run config."""
        return self.run(number) / "config.json"

    @property
    def last_run(self) -> int:
        """Number of the newest run, 0 before the first."""
        return max((int(path.parent.name) for path in self.root.glob("runs/*/config.json")), default=0)

    def read_config(self, number: int) -> RunConfig:
        """What a run was told."""
        return RunConfig.model_validate_json(self.config_path(number).read_bytes())

    def write_config(self, config: RunConfig) -> Path:
        """Keep what a run is told."""
        path = self.config_path(config.run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config.to_json(), encoding="utf-8")
        return path

    def write_secrets(self, environment: Mapping[str, str]) -> None:
        """Give the pods the credentials this shell has, as files only this user can read."""
        for directory, names in SECRETS_FROM_ENVIRONMENT.items():
            target = self.secrets / directory
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in names:
                path = target / name
                path.unlink(missing_ok=True)
                if environment.get(name):
                    path.touch(mode=0o600)
                    path.write_text(environment[name], encoding="utf-8")

    @property
    def uid(self) -> str:
        """Stands for the uid of the job's object: the same for every run in this directory."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.root.absolute().as_uri()))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out.

        Raises:
            CliError: one is under way.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CliError(f"a run is under way in {self.root}") from error
            yield
