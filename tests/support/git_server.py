"""A real Git repository behind HTTP, as GitOps tools read it, and a person's clone of it who pushes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import yaml

AUTHOR = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com", "-c", "commit.gpgsign=false")
BRANCH = "main"


class Clone:
    """A person's clone: what is written in it is committed and pushed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    def push(self, message: str, documents: Mapping[str, Mapping[str, Any]]) -> str:
        """Commit documents under their paths; returns the commit."""
        for path, document in documents.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
        self._git("add", "--all")
        self._git(*AUTHOR, "commit", "--quiet", "--message", message)
        return self._publish()

    def revert(self) -> str:
        """Take the last commit back by another one; returns that."""
        self._git(*AUTHOR, "revert", "--no-edit", "HEAD")
        return self._publish()

    def _publish(self) -> str:
        self._git("push", "--quiet", "origin", BRANCH)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
        return done.stdout


@contextmanager
def serve(directory: Path) -> Iterator[Clone]:
    """Serve an empty repository on the loopback address until the block ends; yields a clone of it."""
    subprocess.run(["git", "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(directory / "jobs.git")], check=True)
    with make_server("127.0.0.1", 0, _git_over_http(directory), handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/jobs.git"
        folder = directory / "clone"
        subprocess.run(["git", "init", "--quiet", f"--initial-branch={BRANCH}", str(folder)], check=True)
        subprocess.run(["git", "remote", "add", "origin", url], check=True, cwd=folder)
        try:
            yield Clone(folder, url)
        finally:
            server.shutdown()
            thread.join()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Nothing."""


def _git_over_http(root: Path) -> WSGIApplication:
    """Git's own server, `git http-backend`, which is a CGI program; everybody may push."""

    def answer(request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        body = request["wsgi.input"].read(int(request.get("CONTENT_LENGTH") or 0))
        variables = {
            name: str(request.get(name, "")) for name in ("PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "CONTENT_TYPE", "CONTENT_LENGTH")
        }
        variables |= {
            "HTTP_CONTENT_ENCODING": request.get("HTTP_CONTENT_ENCODING", ""),
            "GIT_PROTOCOL": request.get("HTTP_GIT_PROTOCOL", ""),
        }
        settings = {"GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "tester", "REMOTE_ADDR": "127.0.0.1"}
        done = subprocess.run(
            ["git", "http-backend"], input=body, env={**os.environ, **variables, **settings}, capture_output=True, check=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in head.decode().splitlines())]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start(status, [header for header in headers if header[0] != "Status"])
        return [content]

    return answer
