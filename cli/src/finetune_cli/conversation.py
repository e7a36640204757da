"""Asking and remembering: single prompts, and conversations line by line (V-10, V-12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from finetune_api.contract.serve import ChatMessage, Question
from finetune_cli.asking import Manner, Server, ask, from_text, samples_of_job
from finetune_cli.errors import CliError
from finetune_cli.history import PLACEHOLDER, Exchange, History
from finetune_cli.terminal import telling

HELP: Final = "/sample N  /samples  /resample  /clear  /export FILE  /exit"
Samples = Callable[[str], Sequence[Question]]
"""Address of the server -> prompts of a dataset."""


@dataclass
class Conversation:
    """A loaded server, asked by one person; what is said is kept in the history."""

    server: Server
    history: History
    weights: str
    manner: Manner
    described: str
    """The manner, for people."""
    uid: str
    out: Console
    notes: Console
    """For what is no answer."""
    of_dataset: Samples | None = None
    """Where samples come from; None: the job's own data."""
    turns: list[ChatMessage] = field(default_factory=list)
    """The conversation so far."""

    def samples(self) -> Sequence[Question]:
        """The prompts that are shown now."""
        with self.server.reached() as address:
            return self.of_dataset(address) if self.of_dataset is not None else samples_of_job(address, self.uid, self.history.draw)

    def resample(self) -> None:
        """Show others from now on.

        Raises:
            CliError: there are none; the ones shown stay.
        """
        if self.of_dataset is not None:
            raise CliError("a Dataset shows the same samples until it is looked at again; --resample is for the job's own data")
        with self.server.reached() as address:
            samples_of_job(address, self.uid, self.history.draw + 1)
        self.history.keep_draw(self.history.draw + 1)

    def show_samples(self) -> None:
        """List the prompts that are shown now."""
        for number, question in enumerate(self.samples(), start=1):
            self.out.print(Text.assemble((f"{number:>2}  ", "dim"), _one_line(shown(question))), soft_wrap=True)

    def ask_sample(self, number: int) -> None:
        """Ask one of them by itself, and show what the data says to it.

        Raises:
            CliError: there is none of this number.
        """
        found = self.samples()
        if not 1 <= number <= len(found):
            raise CliError(f"--sample {number}: there are {len(found)} samples")
        question = found[number - 1]
        self.notes.print(Text(f"> {_one_line(shown(question))}", style="dim"), soft_wrap=True)
        self._ask(question, shown(question))
        if question.expected:
            self.notes.print(Text(f"the data says: {_one_line(question.expected)}", style="dim"), soft_wrap=True)

    def ask_text(self, text: str, *, goes_on: bool) -> None:
        """Ask a prompt: by itself, or as the next turn of the conversation."""
        answer = self._ask(from_text(text, self.turns if goes_on else ()), text)
        if goes_on:
            self.turns += [ChatMessage(role="user", content=text), ChatMessage(role="assistant", content=answer)]

    def ask_raw(self, text: str) -> None:
        """Let the model go on with a text as it is."""
        self._ask(Question(prompt=text), text)

    def obey(self, line: str) -> bool:
        """Carry out a line of a person; False: it ends the conversation. What goes wrong is said, and the conversation goes on."""
        command, _, rest = line.strip().partition(" ")
        try:
            match command:
                case "":
                    pass
                case "/exit":
                    return False
                case "/samples":
                    self.show_samples()
                case "/sample" if rest.isdecimal():
                    self.ask_sample(int(rest))
                case "/resample":
                    self.resample()
                    self.show_samples()
                case "/clear":
                    self.turns.clear()
                    self.notes.print(f"{self.history.clear()} exchanges removed; the conversation begins anew")
                case "/export" if rest:
                    self.notes.print(f"{self.history.export(Path(rest))} exchanges are in {rest}", soft_wrap=True)
                case _ if command.startswith("/"):
                    self.notes.print(HELP)
                case _:
                    self.ask_text(line.strip(), goes_on=True)
        except CliError as error:
            self.notes.print(
                Text.assemble(("error: ", "bold red"), str(error), f"\n{error.advice}" if error.advice else ""), soft_wrap=True
            )
        return True

    def _ask(self, question: Question, prompt: str) -> str:
        with telling(self.notes) as tell:
            tell("Generating")
            with self.server.reached() as address:
                answer = ask(address, question, self.manner)
        self.out.print(answer.text, markup=False, highlight=False, soft_wrap=True)
        if answer.is_cut:
            self.notes.print(Text(f"(cut after {self.manner.max_new_tokens} tokens; --max-new-tokens gives it more)", style="dim"))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.history.add(Exchange(at=now, prompt=prompt, answer=answer.text, weights=self.weights, manner=self.described))
        return answer.text


def show_history(history: History, console: Console) -> None:
    """The exchanges so far, or what to do when there are none (V-10)."""
    found = history.entries()
    if not found:
        console.print(Text(PLACEHOLDER, style="dim"), soft_wrap=True)
    for exchange in found:
        console.print(Text.assemble(("> ", "bold"), exchange.prompt, "\n", exchange.answer, "\n"), soft_wrap=True)


def shown(question: Question) -> str:
    """A question as a person reads it."""
    if question.messages is None:
        return question.prompt or ""
    return "\n".join(message.content if message.role == "user" else f"{message.role}: {message.content}" for message in question.messages)


def _one_line(text: str) -> str:
    return " ".join(text.split())
