"""A local server that speaks the Hugging Face Hub's protocol: model and dataset repositories, revisions, tokens, gated and private ones.

Read by snapshot, written by commit with large files over LFS. ``python hub.py PORT TOKEN`` serves an empty one on all addresses.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Kind = Literal["models", "datasets"]
LARGE = (".safetensors", ".gguf")
"""Kept outside git, whatever their size."""


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
        """Tokens that may read private and gated repositories, and write."""
        self.readers: set[str] = set()
        """Tokens that are valid and may not write."""
        self.blobs: dict[str, bytes] = {}
        """Large files by sha256."""
        self.requests: list[str] = []
        self.failures = 0
        """So many requests are answered with 503 from now on."""
        self.damaged: dict[str, bytes] = {}
        """Path of a file -> what is sent in place of its content, as a broken proxy would."""
        self.port = 0

    def clear(self) -> None:
        """Forget repositories, tokens, requests and faults."""
        for kept in (self.repositories, self.tokens, self.requests, self.damaged):
            kept.clear()
        self.failures = 0

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

    def files(self, name: str, kind: Kind = "models") -> dict[str, bytes]:
        """Files of a repository at its newest commit."""
        repository = self.repositories[kind, name]
        return repository.commits[repository.revisions["main"]]

    def application(self) -> web.Application:
        """Routes of the hub's API."""
        app = web.Application(middlewares=[self._observe], client_max_size=2**30)
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}", self._info)
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}/revision/{revision}", self._info)
        app.router.add_get("/api/{kind:models|datasets}/{org}/{name}/tree/{revision}", self._tree)
        app.router.add_get("/{prefix:(datasets/)?}{org}/{name}/resolve/{revision}/{path:.+}", self._file)
        app.router.add_get("/api/whoami-v2", self._whoami)
        app.router.add_post("/api/repos/create", self._create)
        app.router.add_post("/api/validate-yaml", self._validate)
        app.router.add_post("/api/{kind:models|datasets}/{org}/{name}/preupload/{revision}", self._preupload)
        app.router.add_post("/{prefix:(datasets/)?}{org}/{name}.git/info/lfs/objects/batch", self._batch)
        app.router.add_put("/blobs/{oid}", self._put)
        app.router.add_post("/api/{kind:models|datasets}/{org}/{name}/commit/{revision}", self._commit)
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
        access = self.repositories[kind, name].access
        siblings = [{"rfilename": path, "size": len(content), **_blob(path, content)} for path, content in sorted(files.items())]
        return web.json_response(
            {"id": name, "modelId": name, "sha": commit, "tags": [], "siblings": siblings}
            | {"private": access == "private", "gated": "manual" if access == "gated" else False}
        )

    async def _tree(self, request: web.Request) -> web.Response:
        kind: Kind = "models" if request.match_info["kind"] == "models" else "datasets"
        _, files = self._find(request, kind)
        return web.json_response(
            [{"type": "file", "path": path, "size": len(content), "oid": _oid(content)} for path, content in files.items()]
        )

    async def _file(self, request: web.Request) -> web.Response:
        commit, files = self._find(request, "datasets" if request.match_info["prefix"] else "models")
        content = self.damaged.get(request.match_info["path"], files.get(request.match_info["path"]))
        if content is None:
            raise _refusal(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"}
        wanted = request.http_range
        if wanted.start is not None:
            piece = content[wanted]
            headers["Content-Range"] = f"bytes {wanted.start}-{wanted.start + len(piece) - 1}/{len(content)}"
            return web.Response(status=206, body=piece, headers=headers)
        return web.Response(body=content, headers=headers)

    # --- writing ---

    def _writer(self, request: web.Request) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            raise _refusal(403 if token in self.readers else 401, "Forbidden", "This token may not write here")

    async def _whoami(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens | self.readers:
            raise _refusal(401, "Unauthorized", "Invalid credentials")
        return web.json_response({"type": "user", "name": "tester", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    async def _create(self, request: web.Request) -> web.Response:
        self._writer(request)
        wanted = await request.json()
        name = f"{wanted['organization']}/{wanted['name']}"
        url = f"http://{request.host}/{name}"
        kind: Kind = "datasets" if wanted.get("type") == "dataset" else "models"
        if (kind, name) in self.repositories:
            return web.json_response({"url": url, "error": "You already created this model repo"}, status=409)
        private = wanted.get("private") or wanted.get("visibility") == "private"
        self.repositories[kind, name] = repository = Repository("private" if private else "public")
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        return web.json_response({"url": url, "id": name, "name": name})

    async def _validate(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"errors": [], "warnings": []})

    def _repository(self, request: web.Request) -> Repository:
        self._writer(request)
        is_dataset = "datasets" in (request.match_info.get("kind"), request.match_info.get("prefix", "").rstrip("/"))
        kind: Kind = "datasets" if is_dataset else "models"
        found = self.repositories.get((kind, f"{request.match_info['org']}/{request.match_info['name']}"))
        if found is None:
            raise _refusal(404, "RepoNotFound", "Repository not found")
        return found

    async def _preupload(self, request: web.Request) -> web.Response:
        """Which files go through LFS: those of weights, whatever their size."""
        self._repository(request)
        wanted = (await request.json())["files"]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in wanted
        ]
        return web.json_response({"files": modes})

    async def _batch(self, request: web.Request) -> web.Response:
        """Git LFS: where to put what is not there yet."""
        self._repository(request)
        objects: list[dict[str, Any]] = []
        for wanted in (await request.json())["objects"]:
            target = {"upload": {"href": f"http://{request.host}/blobs/{wanted['oid']}"}}
            objects.append({**wanted} if wanted["oid"] in self.blobs else {**wanted, "actions": target})
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _put(self, request: web.Request) -> web.Response:
        content = await request.read()
        if hashlib.sha256(content).hexdigest() != request.match_info["oid"]:
            return web.Response(status=400, text="digest")
        self.blobs[request.match_info["oid"]] = content
        return web.Response()

    async def _commit(self, request: web.Request) -> web.Response:
        repository = self._repository(request)
        files = dict(repository.commits.get(repository.revisions.get("main", ""), {}))
        for line in (await request.read()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
        commit = repository.commit(files)
        name = f"{request.match_info['org']}/{request.match_info['name']}"
        return web.json_response({"commitOid": commit, "commitUrl": f"http://{request.host}/{name}/commit/{commit}", "success": True})


def _oid(content: bytes) -> str:
    """Git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _blob(path: str, content: bytes) -> dict[str, Any]:
    """What a listing with blobs says of a file: git's name for it, and the sha256 of a large one."""
    if not path.endswith(LARGE):
        return {"blobId": _oid(content)}
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n".encode()
    )
    lfs = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": len(pointer)}
    return {"blobId": _oid(pointer), "lfs": lfs}


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


def main() -> None:
    """Serve an empty hub whose one token may do everything."""
    hub = HubServer()
    hub.port, token = int(sys.argv[1]), sys.argv[2]
    hub.tokens.add(token)
    web.run_app(hub.application(), host="0.0.0.0", port=hub.port, print=None)  # noqa: S104 - a pod of a test cluster


if __name__ == "__main__":
    main()
