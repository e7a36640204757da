"""A real Git repository behind HTTP, as GitOps tools read it, and a person's clone of it who pushes."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dulwich.repo import Repo
from dulwich.server import BackendRepo, DictBackend
from dulwich.web import WSGIRequestHandlerLogger, WSGIServerLogger, make_server, make_wsgi_chain

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
    origin = directory / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(origin)], check=True)
    repositories: dict[str, BackendRepo] = {"/jobs.git": Repo(str(origin))}
    with make_server(
        "127.0.0.1", 0, make_wsgi_chain(DictBackend(repositories)), handler_class=WSGIRequestHandlerLogger, server_class=WSGIServerLogger
    ) as server:
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
