"""One plain HTTP port for the kubelet and Prometheus: /healthz, /readyz, /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str]
"""What is wrong, in a sentence; empty when nothing is."""


def build_app(registry: CollectorRegistry, *, health: Mapping[str, Check], readiness: Mapping[str, Check]) -> web.Application:
    """The aiohttp application."""
    app = web.Application()

    async def metrics(_request: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_request: web.Request) -> web.Response:
        return _verdict(health)

    async def readyz(_request: web.Request) -> web.Response:
        return _verdict(readiness)

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _verdict(checks: Mapping[str, Check]) -> web.Response:
    problems = {name: problem for name, check in checks.items() if (problem := check())}
    return web.json_response({"ok": not problems, "problems": problems}, status=503 if problems else 200)
