"""Questions to a server: waiting until it has loaded, samples of the data, answers."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from finetune_api.contract.serve import (
    CHAT_PATH,
    COMPLETION_PATH,
    HEALTH_PATH,
    MAX_NEW_TOKENS,
    REPETITION_PENALTY,
    ROWS_PATH,
    SAMPLES_PATH,
    SHOWN_SAMPLES,
    ChatMessage,
    Health,
    Question,
    RowRequest,
    Samples,
    Sampling,
    ServerState,
)
from finetune_cli.errors import CliError

ANSWER_SECONDS: Final = 3600
"""Longest time of an answer: a large model on few CPUs takes its time."""
HEALTH_SECONDS: Final = 10
POLL_SECONDS: Final = 1.0
DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The address is one of this machine: no proxy is asked."""
Tell = Callable[[str], None]


class UnreachableError(CliError):
    """Nobody listens at a server's address: it has not begun to, or has ended."""


class Server(Protocol):
    """Something that answers questions, in a cluster or on this machine."""

    def start(self) -> bool:
        """Start it. False: it is there already."""

    def waits_for(self) -> str:
        """Why it cannot be reached yet; empty when it may be tried.

        Raises:
            CliError: it has ended.
        """

    def reached(self) -> AbstractContextManager[str]:
        """Its address, for as long as the context lasts."""


@dataclass(frozen=True)
class Manner:
    """How answers are made."""

    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = MAX_NEW_TOKENS
    repetition_penalty: float = REPETITION_PENALTY


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    is_cut: bool
    """It would have gone on after ``max_new_tokens``."""


def await_loaded(server: Server, tell: Tell) -> Health:
    """Wait until a server has loaded its model; ``tell`` gets what it does meanwhile (V-07).

    Raises:
        CliError: it ended; the message says why.
    """
    while True:
        waits = server.waits_for()
        if not waits:
            try:
                with server.reached() as address:
                    while (health := health_of(address)).state is ServerState.LOADING:
                        tell(f"Loading {health.doing}")
                        time.sleep(POLL_SECONDS)
                    return health
            except UnreachableError:
                waits = "the server begins"
        tell(f"Loading: {waits}")
        time.sleep(POLL_SECONDS)


def ask(address: str, question: Question, manner: Manner) -> Answer:
    """Ask a loaded server.

    Raises:
        CliError: it refuses the question, or went away.
    """
    common = {
        **manner.sampling.model_dump(),
        "max_tokens": manner.max_new_tokens,
        "repetition_penalty": manner.repetition_penalty,
    }
    if question.messages is not None:
        messages = [message.model_dump() for message in question.messages]
        choice = _call(address + CHAT_PATH, {**common, "messages": messages}, seconds=ANSWER_SECONDS)["choices"][0]
        return Answer(choice["message"]["content"], choice["finish_reason"] == "length")
    choice = _call(address + COMPLETION_PATH, {**common, "prompt": question.prompt}, seconds=ANSWER_SECONDS)["choices"][0]
    return Answer(choice["text"], choice["finish_reason"] == "length")


def from_text(text: str, before: Sequence[ChatMessage] = ()) -> Question:
    """A prompt of one's own, behind a conversation (V-04)."""
    return Question(messages=[*before, ChatMessage(role="user", content=text)])


def samples_of_job(address: str, uid: str, draw: int) -> list[Question]:
    """Five prompts of the training data, others for each draw until all that the training left were shown (V-03).

    Raises:
        CliError: the training left none, or no others.
    """
    prompts = [each for each in Samples.model_validate(_call(address + SAMPLES_PATH)).prompts if each.split == "train"]
    if not prompts:
        raise CliError("the job's data left no prompts: rows with images, or the data of a program of one's own, cannot be asked again")
    if draw and len(prompts) <= SHOWN_SAMPLES:
        raise CliError(f"the job's data left {len(prompts)} prompts, and there are no others", advice="Ask your own with --prompt.")
    order = random.Random(uid).sample(range(len(prompts)), len(prompts))  # noqa: S311 - which are shown first
    first = draw * SHOWN_SAMPLES
    chosen = [prompts[order[(first + place) % len(order)]] for place in range(min(SHOWN_SAMPLES, len(order)))]
    return [Question(prompt=each.prompt, expected=each.expected) for each in chosen]


def samples_of_dataset(address: str, dataset: Mapping[str, Any]) -> list[Question]:
    """Prompts of the rows that the status of a Dataset shows, read as a training would (D-19).

    Raises:
        CliError: it shows none, or none of them has its whole prompt there.
    """
    name, spec, samples = dataset["metadata"]["name"], dataset["spec"], (dataset.get("status") or {}).get("samples") or []
    if not samples:
        raise CliError(f"Dataset {name} has no samples in its status; is it ReadyForTraining?")
    questions, refusals = [], []
    for text in samples:
        row = RowRequest(row=whole_part(text), format=spec.get("format"), prompt_column=spec.get("promptColumn"))
        try:
            found = _call(address + ROWS_PATH, row.model_dump(mode="json", by_alias=True, exclude_none=True))
            questions.append(Question.model_validate(found))
        except UnreachableError:
            raise
        except CliError as error:
            refusals.append(str(error))
    if not questions:
        raise CliError(f"no sample in the status of Dataset {name} can be asked: {refusals[0]}", advice="Ask your own with --prompt.")
    return questions


def whole_part(text: str) -> dict[str, Any]:
    """The fields, and items of lists, that are whole in the JSON of a row that may have been cut."""
    try:
        return dict(json.loads(text))
    except ValueError:
        pass
    closing: list[str] = []
    whole, in_string, is_escaped = "{}", False, False
    for place, letter in enumerate(text):
        if in_string:
            in_string = is_escaped or letter != '"'
            is_escaped = letter == "\\" and not is_escaped
        elif letter == '"':
            in_string = True
        elif letter in "{[":
            closing.append("}" if letter == "{" else "]")
        elif letter in "}]":
            closing.pop()
        elif letter == ",":
            whole = text[:place] + "".join(reversed(closing))
    return dict(json.loads(whole))


def health_of(address: str) -> Health:
    """What a server is doing.

    Raises:
        UnreachableError: nobody listens there.
    """
    return Health.model_validate(_call(address + HEALTH_PATH))


def _call(url: str, document: Mapping[str, Any] | None = None, *, seconds: float = HEALTH_SECONDS) -> Any:
    """GET, or POST of a document; what the server refuses becomes its sentence."""
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - an address of this machine
    try:
        with DIRECT.open(request, timeout=seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise CliError(_sentence(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"the server went away ({error})", advice="The same command starts it again.") from error


def _sentence(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code}: {text[:500]}"
