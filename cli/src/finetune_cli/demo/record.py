"""What ``make demo`` used, so that ``make demo-down`` finds it without being told again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_cli.errors import CliError

HOME_VARIABLE = "FINETUNE_HOME"
CONTEXT_VARIABLE = "KUBE_CONTEXT"
PROVIDER_VARIABLE = "FINETUNE_CLUSTER"
REGISTRY_VARIABLE = "FINETUNE_REGISTRY"
KUBECONFIG_VARIABLE = "KUBECONFIG"
_REPEATED = (HOME_VARIABLE, KUBECONFIG_VARIABLE, CONTEXT_VARIABLE, PROVIDER_VARIABLE, REGISTRY_VARIABLE)


@dataclass(frozen=True, slots=True)
class Played:
    """Where a demo was played: in a named context, on a cluster that it started, or (neither) without one."""

    context: str = ""
    kubeconfig: str = ""
    """The context's file; empty for the usual one."""
    provider: str = ""
    """What finetune-cluster calls the cluster that it started: kind or node."""

    @classmethod
    def of(cls, environment: Mapping[str, str], provider: str) -> Played:
        """What the environment of a demo tells."""
        context = environment.get(CONTEXT_VARIABLE, "")
        if not context:
            return cls(provider=provider)
        # After `eval "$(finetune-cluster env)"` it is a copy, which the next cluster overwrites.
        kubeconfig = environment.get(KUBECONFIG_VARIABLE, "")
        return cls(context, "" if kubeconfig == str(home_of(environment) / "kubeconfig") else kubeconfig)

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which commands find it again."""
        if self.context:
            return {CONTEXT_VARIABLE: self.context, KUBECONFIG_VARIABLE: self.kubeconfig, PROVIDER_VARIABLE: ""}
        return {CONTEXT_VARIABLE: "", PROVIDER_VARIABLE: self.provider}

    def __str__(self) -> str:
        """As in a sentence."""
        if self.context:
            return f"in context {self.context}"
        return f"on the {self.provider} cluster" if self.provider else "without a cluster"


def home_of(environment: Mapping[str, str]) -> Path:
    """The folder of finetune-cluster."""
    named = environment.get(HOME_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "finetune"


def repeated(environment: Mapping[str, str]) -> str:
    """Assignments to put before a command, so that it means the same cluster in a terminal where they are not set; may be empty."""
    return "".join(f"{name}={shlex.quote(environment[name])} " for name in _REPEATED if environment.get(name))


class Record:
    """The demos that were not taken down yet."""

    def __init__(self, home: Path) -> None:
        self._path = home / "demos.json"

    def read(self) -> list[Played]:
        """All of them, in the order in which they were played.

        Raises:
            CliError: the file is not what was written.
        """
        if not self._path.exists():
            return []
        try:
            return [Played(**entry) for entry in json.loads(self._path.read_text())]
        except (ValueError, TypeError) as error:
            raise CliError(f"{self._path} is damaged: {error}", advice="Name the cluster in KUBE_CONTEXT and remove the file.") from error

    def add(self, played: Played) -> None:
        """Note a demo."""
        self._write([*(entry for entry in self.read() if entry != played), played])

    def remove(self, played: Played) -> None:
        """Forget a demo that was taken down."""
        self._write([entry for entry in self.read() if entry != played])

    def _write(self, entries: list[Played]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps([{name: getattr(entry, name) for name in Played.__slots__} for entry in entries]))
        draft.replace(self._path)
