"""Between an operator and the API server: passes everything on, and does to watches what networks and servers do to them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml
from aiohttp import web

EXPIRED = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "Expired",
    "code": 410,
    "message": "too old resource version",
}
HALF_AN_EVENT = b'{"type":"MODIFIED","object":{"ki'
LINE_LIMIT = 2**22
Manner = Literal["as it is", "doubled", "with gaps"]
End = Literal["410 Gone", "cut in the middle", "silence"]
_Order = bytes | End | None
"""A line to pass on, an end to make, or None: the server has ended the watch."""


class WatchProxy:
    """Plain HTTP on a port of this machine, with ``kubectl proxy`` behind it."""

    def __init__(self, port: int) -> None:
        """``port``: of ``kubectl proxy``."""
        self.manner: Manner = "as it is"
        """How events are passed on: each once, each twice, or every other one."""
        self.kept_back = 0
        """Events that were not passed on."""
        self.port = 0
        self._is_lost = False
        self._keeping_back = False
        self._upstream = f"http://127.0.0.1:{port}"
        self._watches: dict[asyncio.Queue[_Order], bool] = {}
        """Open watches, and whether nothing of what the server says is passed on any more."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def kubeconfig(self, file: Path) -> Path:
        """Write a kubeconfig whose server this is."""
        cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}
        users = [{"name": "nobody", "user": {}}]
        config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users}
        file.write_text(yaml.safe_dump({**config, "current-context": "proxy"}), encoding="utf-8")
        return file

    def keep_back(self) -> None:
        """From now on nothing is heard of any watch, until :meth:`end`."""

        def act() -> None:
            self._keeping_back = True
            self._watches.update(dict.fromkeys(self._watches, True))

        self._call(act)

    def end(self, how: End) -> None:
        """End the watches from which nothing is heard, or leave them in silence; those begun after it are whole."""

        def act() -> None:
            self._keeping_back = False
            for orders, deaf in self._watches.items():
                if deaf:
                    orders.put_nowait(how)

        self._call(act)

    def close(self) -> None:
        """Serve no more."""
        self._call(self._stop.set)
        self._thread.join(30)

    def _call(self, act: Any) -> None:
        self._loop.call_soon_threadsafe(act)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=LINE_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        async with aiohttp.ClientSession(self._upstream, read_bufsize=LINE_LIMIT, timeout=aiohttp.ClientTimeout()) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
            for orders in self._watches:
                orders.put_nowait(None)
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name in ("Accept", "Content-Type", "User-Agent")}
        async with self._session.request(request.method, request.path_qs, headers=headers, data=await request.read() or None) as answer:
            if answer.ok and request.query.get("watch") == "true":
                return await self._watch(request, answer)
            told = {name: value for name, value in answer.headers.items() if name in ("Content-Type", "Retry-After")}
            return web.Response(status=answer.status, body=await answer.read(), headers=told)

    async def _watch(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._watches[orders] = self._keeping_back
        reader = asyncio.create_task(_read(answer, orders))
        try:
            while (order := await orders.get()) is not None:
                if isinstance(order, bytes):
                    for line in self._heard(order, deaf=self._watches[orders]):
                        await response.write(line)
                elif order == "410 Gone":
                    await response.write(json.dumps({"type": "ERROR", "object": EXPIRED}).encode() + b"\n")
                    break
                elif order == "cut in the middle" and request.transport is not None:
                    await response.write(HALF_AN_EVENT)
                    request.transport.abort()
                    break
        finally:
            reader.cancel()
            del self._watches[orders]
        return response

    def _heard(self, line: bytes, *, deaf: bool) -> list[bytes]:
        is_event = b'"type":"BOOKMARK"' not in line[:40]
        if deaf or (is_event and self.manner == "with gaps" and self._is_next_lost()):
            self.kept_back += is_event
            return []
        return [line] * (2 if self.manner == "doubled" else 1)

    def _is_next_lost(self) -> bool:
        self._is_lost = not self._is_lost
        return self._is_lost


async def _read(answer: aiohttp.ClientResponse, orders: asyncio.Queue[_Order]) -> None:
    try:
        async for line in answer.content:
            orders.put_nowait(line)
    finally:
        orders.put_nowait(None)


@contextmanager
def running_watch_proxy(port: int) -> Iterator[WatchProxy]:
    """A proxy that lives as long as the context."""
    proxy = WatchProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
