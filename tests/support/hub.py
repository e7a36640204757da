"""A local server that speaks the Hugging Face Hub's protocol: model and dataset repositories, revisions, tokens, gated and private ones."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

Kind = Literal["models", "datasets"]


@dataclass
class Repository:
    """One repository with its revisions."""

    access: Literal["public", "private", "gated"] = "public"
    revisions: dict[str, str] = field(default_factory=dict)
    """Branch or tag -> commit."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> files."""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit with exactly these files; returns its hash."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + content)
        commit = digest.hexdigest()
        self.commits[commit] = dict(files)
        self.revisions[branch] = commit
        return commit


class HubServer:
    """Repositories by kind and name; every request is kept."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.tokens: set[str] = set()
        """Tokens that may read private and gated repositories."""
        self.requests: list[str] = []
        self.failures = 0
        """So many requests are answered with 503 from now on."""
        self.port = 0

    @property
    def endpoint(self) -> str:
        """Value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def add(self, kind: Kind, name: str, files: dict[str, bytes], access: Literal["public", "private", "gated"] = "public") -> str:
        """Create a repository; returns its commit."""
        self.repositories[kind, name] = repository = Repository(access)
        return repository.commit(files)

    def downloads(self) -> list[str]:
        """Paths of files that were fetched."""
        return [request.partition(" ")[2] for request in self.requests if request.startswith("GET ") and "/resolve/" in request]

    def application(self) -> web.Application:
        """Routes of the hub's API."""
        app = web.Application(middlewares=[self._observe])
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}", self._info)
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}/revision/{revision}", self._info)
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}/tree/{revision}", self._tree)
        app.router.add_get("/{prefix:(datasets/)?}{org}/{name}/resolve/{revision}/{path:.+}", self._file)
        return app

    @web.middleware
    async def _observe(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if self.failures > 0:
            self.failures -= 1
            return web.Response(status=503, text="busy")
        return await handler(request)

    def _find(self, request: web.Request, kind: Kind) -> tuple[str, dict[str, bytes]]:
        """(commit, files) that a request may see; answers as the hub does when it may not."""
        repository = self.repositories.get((kind, f"{request.match_info['org']}/{request.match_info['name']}"))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.access == "private" and token not in self.tokens):
            raise _refusal(401 if not token else 404, "RepoNotFound", "Repository not found")
        if repository.access == "gated" and token not in self.tokens and "/resolve/" in request.path:
            raise _refusal(403 if token else 401, "GatedRepo", "Access to this repository is restricted")
        revision = request.match_info.get("revision", "main")
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            raise _refusal(404, "RevisionNotFound", "Invalid rev id")
        return commit, repository.commits[commit]

    async def _info(self, request: web.Request) -> web.Response:
        kind: Kind = "models" if request.match_info["kind"] == "models" else "datasets"
        commit, files = self._find(request, kind)
        name = f"{request.match_info['org']}/{request.match_info['name']}"
        siblings = [{"rfilename": path, "size": len(content)} for path, content in sorted(files.items())]
        return web.json_response({"id": name, "modelId": name, "sha": commit, "private": False, "tags": [], "siblings": siblings})

    async def _tree(self, request: web.Request) -> web.Response:
        kind: Kind = "models" if request.match_info["kind"] == "models" else "datasets"
        _, files = self._find(request, kind)
        return web.json_response(
            [{"type": "file", "path": path, "size": len(content), "oid": _oid(content)} for path, content in files.items()]
        )

    async def _file(self, request: web.Request) -> web.Response:
        commit, files = self._find(request, "datasets" if request.match_info["prefix"] else "models")
        content = files.get(request.match_info["path"])
        if content is None:
            raise _refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        wanted = request.http_range
        if wanted.start is not None:
            piece = content[wanted]
            headers["Content-Range"] = f"bytes {wanted.start}-{wanted.start + len(piece) - 1}/{len(content)}"
            return web.Response(status=206, body=piece, headers=headers)
        return web.Response(body=content, headers=headers)


def _oid(content: bytes) -> str:
    """Git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _refusal(status: int, code: str, message: str) -> web.HTTPException:
    """An error as the hub words it."""
    kind = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}[status]
    return kind(headers={"X-Error-Code": code, "X-Error-Message": message}, text=message)


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """A hub that lives as long as the context, on a thread of its own."""
    hub = HubServer()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(hub.application())

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.port = runner.addresses[0][1]

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
