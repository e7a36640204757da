"""The operator's progress endpoint for tests: keeps all posts, answers with the commands a test sets."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import PATIENCE_SECONDS, eventually


class ProgressServer:
    """Accepts posts of one job."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.status = 200
        self.tokens: set[str] = set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.tokens.add(self.headers["Authorization"])
                server.posts.append(body)
                answer = json.dumps({"contractVersion": 1, "commands": server.commands}).encode()
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/namespaces/team/finetunejobs/job/progress"

    @property
    def last(self) -> dict[str, Any]:
        """Our part of the newest post."""
        return dict(self.posts[-1]["finetune"]) if self.posts else {}

    def command(self, action: str, command_id: str = "c1", **fields: Any) -> None:
        """Answer posts with this command from now on."""
        self.commands = [{"id": command_id, "action": action, **fields}]

    def wait_for(self, what: str, *, within: float = PATIENCE_SECONDS) -> Any:
        """Value of a field of our part, once it is there."""
        return eventually(lambda: self.last.get(what), within=within, what=f"{what} in a post")

    def wait_for_step(self, step: int, *, within: float = PATIENCE_SECONDS) -> None:
        """Wait until a step has been reported."""
        eventually(lambda: self.last.get("step", 0) >= step, within=within, what=f"step {step}")

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_progress_server() -> Iterator[ProgressServer]:
    """A server that lives as long as the context."""
    server = ProgressServer()
    try:
        yield server
    finally:
        server.close()
