"""Prompts and answers of a job, kept on this machine (V-08 to V-10)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from finetune_api.contract.base import ContractModel
from finetune_cli.errors import CliError

PLACEHOLDER = "No prompts yet. Ask with --prompt TEXT, or a sample of the data with --sample N."


class Exchange(ContractModel):
    """A prompt and its answer."""

    at: str
    """RFC 3339, UTC."""
    prompt: str
    answer: str
    weights: str = ""
    """What answered."""
    manner: str = ""
    """How the answer was drawn."""


class History:
    """The exchanges of one job, oldest first, as a file of JSON lines; beside it the number of the samples that were drawn last."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._draw = file.with_suffix(".draw")

    def entries(self) -> list[Exchange]:
        """All of them.

        Raises:
            CliError: the file is none of this program's.
        """
        try:
            lines = self.file.read_text(encoding="utf-8").splitlines()
            return [Exchange.model_validate_json(line) for line in lines if line]
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a line is no exchange"
            raise CliError(f"the history {self.file} cannot be read: {reason}", advice="--clear-history removes it.") from error

    def add(self, exchange: Exchange) -> None:
        """Append one. It may hold what nobody else should read: the file is this user's alone."""
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.file.touch(mode=0o600)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{exchange.to_json()}\n")

    def clear(self) -> int:
        """Remove all of them; returns how many there were."""
        count = len(self.file.read_text(encoding="utf-8").splitlines()) if self.file.exists() else 0
        self.file.unlink(missing_ok=True)
        return count

    def export(self, target: Path) -> int:
        """Write them as a text for people; returns how many there are.

        Raises:
            CliError: there are none, or the file cannot be written.
        """
        found = self.entries()
        if not found:
            raise CliError("there is no history to export yet", advice=PLACEHOLDER)
        try:
            target.write_text("\n".join(map(render_exchange, found)), encoding="utf-8")
        except OSError as error:
            raise CliError(f"--export {target}: {error.strerror}") from error
        return len(found)

    @property
    def draw(self) -> int:
        """Number of the samples that are shown."""
        return int(self._draw.read_text(encoding="utf-8")) if self._draw.exists() else 0

    def keep_draw(self, draw: int) -> None:
        """Keep it for the next command."""
        self._draw.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._draw.write_text(str(draw), encoding="utf-8")


def history_of(namespace: str, name: str, uid: str, environment: Mapping[str, str]) -> History:
    """Where the exchanges of a job are kept: below $XDG_STATE_HOME, else ~/.local/state. Another job of the same name has its own."""
    state = environment.get("XDG_STATE_HOME")
    root = Path(state) if state else Path.home() / ".local/state"
    return History(root / "kubectl-finetune" / "infer" / namespace / f"{name}-{uid[:8]}.jsonl")


def render_exchange(exchange: Exchange) -> str:
    """An exchange as a text for people."""
    return f"[{exchange.at}] {exchange.weights}; {exchange.manner}\n> {exchange.prompt}\n{exchange.answer}\n"
