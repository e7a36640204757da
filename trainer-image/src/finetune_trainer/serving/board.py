"""What a server is doing: shared by the thread that loads and the threads that answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from finetune_api.contract.serve import ChatRequest, CompletionRequest, Health, Question, RowRequest, ServerState
from finetune_api.contract.store import SamplePrompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """An answer of a model."""

    text: str
    finish_reason: Literal["stop", "length"]
    """``stop``: the model ended it; ``length``: it was cut at ``max_tokens``."""
    prompt_tokens: int
    completion_tokens: int


class Generator(Protocol):
    """A loaded model."""

    def chat(self, request: ChatRequest) -> Reply:
        """Go on with a conversation."""

    def complete(self, request: CompletionRequest) -> Reply:
        """Go on with a text."""

    def read_row(self, request: RowRequest) -> Question:
        """Read a row of a dataset as a training would."""


class Board:
    """State of a server. One question is answered at a time; others wait their turn."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._doing = ""
        self._words = ""
        self._generator: Generator | None = None
        self._prompts: Sequence[SamplePrompt] = ()
        self._waiting = 0
        self._answered = 0
        self._last = clock()

    def tell(self, doing: str) -> None:
        """Say what is being loaded."""
        logger.info("loading %s", doing)
        with self._changed:
            self._doing = doing

    def open(self, generator: Generator, prompts: Sequence[SamplePrompt], words: str) -> None:
        """Answer from now on; ``words`` say what answers."""
        with self._changed:
            self._generator, self._prompts, self._words, self._last = generator, prompts, words, self._clock()

    def health(self) -> Health:
        """What the server is doing."""
        with self._changed:
            if self._generator is None:
                return Health(state=ServerState.LOADING, doing=self._doing)
            return Health(state=ServerState.GENERATING if self._waiting else ServerState.IDLE, weights=self._words)

    @property
    def generator(self) -> Generator | None:
        """The loaded model; None while it loads."""
        return self._generator

    @property
    def prompts(self) -> Sequence[SamplePrompt]:
        """Prompts of the job's data."""
        return self._prompts

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Take one's turn; whoever waits or answers keeps the server from ending."""
        with self._changed:
            self._waiting += 1
        try:
            with self._turn:
                yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._answered += 1
                self._last = self._clock()
                self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> int:
        """Return the number of questions once none was asked for so long."""
        with self._changed:
            while self._waiting or (left := self._last + seconds - self._clock()) > 0:
                self._changed.wait(None if self._waiting else left)
            return self._answered
