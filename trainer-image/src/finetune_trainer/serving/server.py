"""The HTTP side of a server, on the loopback address alone."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.serve import (
    CHAT_PATH,
    COMPLETION_PATH,
    HEALTH_PATH,
    ROWS_PATH,
    SAMPLES_PATH,
    ChatRequest,
    CompletionRequest,
    RowRequest,
    Samples,
)
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.serving.board import Board, Generator, Reply

logger = logging.getLogger(__name__)
LOOPBACK: Final = "127.0.0.1"
MAX_BODY: Final = 16 * 2**20
"""Bytes of a question."""
NAME: Final = "fine-tuned"
"""What the model is called in answers."""
QUESTIONS: Final[dict[str, type[BaseModel]]] = {CHAT_PATH: ChatRequest, COMPLETION_PATH: CompletionRequest, ROWS_PATH: RowRequest}
Document = dict[str, Any]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, board: Board) -> None:
        self.board = board
        super().__init__((LOOPBACK, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    @property
    def _board(self) -> Board:
        assert isinstance(self.server, _Server), "made by it alone"
        return self.server.board

    def do_GET(self) -> None:
        board = self._board
        if self.path == HEALTH_PATH:
            self._answer(HTTPStatus.OK, board.health().model_dump(mode="json", by_alias=True))
        elif self.path == SAMPLES_PATH:
            self._answer(HTTPStatus.OK, Samples(prompts=list(board.prompts)).model_dump(mode="json", by_alias=True))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}; there are {HEALTH_PATH} and {SAMPLES_PATH}")

    def do_POST(self) -> None:
        kind, size = QUESTIONS.get(self.path), int(self.headers.get("Content-Length") or 0)
        if kind is None:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self.path}; questions go to {', '.join(QUESTIONS)}")
        if size > MAX_BODY:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a question has at most {MAX_BODY} bytes, this has {size}")
        try:
            question = kind.model_validate_json(self.rfile.read(size))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return self._refuse(HTTPStatus.BAD_REQUEST, f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}")
        generator = self._board.generator
        if generator is None:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"the model is being loaded; {HEALTH_PATH} says when it is there")
        try:
            with self._board.answering():
                answer = _ask(generator, question)
        except TrainerError as error:
            kind_of_error = HTTPStatus.BAD_REQUEST if error.failure_class is FailureClass.DATA else HTTPStatus.INTERNAL_SERVER_ERROR
            return self._refuse(kind_of_error, error.message)
        except Exception as error:
            logger.exception("a question could not be answered")
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {str(error)[:500]}")
        return self._answer(HTTPStatus.OK, answer)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer(status, {"error": {"message": message, "type": status.phrase, "code": status.value}})

    def _answer(self, status: HTTPStatus, document: Document) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
        logger.debug(format, *args)


@contextmanager
def listening(port: int, board: Board) -> Iterator[int]:
    """Answer on a port (0: a free one, which is yielded) for as long as the context lasts.

    Raises :class:`TrainerError` (ConfigurationError) when the port is taken.
    """
    try:
        server = _Server(port, board)
    except OSError as error:
        raise configuration_error(f"port {port} of {LOOPBACK} cannot be listened on: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def _ask(generator: Generator, question: BaseModel) -> Document:
    match question:
        case ChatRequest():
            reply = generator.chat(question)
            return _completion("chat.completion", reply, {"message": {"role": "assistant", "content": reply.text}})
        case CompletionRequest():
            reply = generator.complete(question)
            return _completion("text_completion", reply, {"text": reply.text})
        case RowRequest():
            return generator.read_row(question).model_dump(mode="json", by_alias=True, exclude_none=True)
        case _:
            raise AssertionError(f"{type(question).__name__} is no question")


def _completion(kind: str, reply: Reply, said: Document) -> Document:
    """An answer in the form of the OpenAI API."""
    counts = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
    choice = {"index": 0, **said, "finish_reason": reply.finish_reason}
    return {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": NAME, "choices": [choice], "usage": counts}
