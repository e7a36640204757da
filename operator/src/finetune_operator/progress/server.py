"""HTTPS server of the progress endpoint; every replica serves it (see :mod:`finetune_api.contract.progress` for the protocol)."""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from pydantic import ValidationError

from finetune_api.contract.progress import ProgressPost, progress_path
from finetune_operator.cluster.errors import ApiError
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.intake import Intake
from finetune_operator.progress.tokens import TokenGate, TokenRefusedError

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 256 * 1024
BAD_TOKENS_PER_SECOND, BAD_TOKENS_AT_ONCE, MAX_SOURCES = 1.0, 10.0, 1000


class ProgressServer:
    """Authenticates posts and hands them to the intake."""

    def __init__(self, gate: TokenGate, intake: Intake, clock: Callable[[], float], count: Callable[[int], None]) -> None:
        """``count(status)`` is told of each answer; ``clock`` is monotonic seconds."""
        self._gate, self._intake, self._clock, self._count = gate, intake, clock, count
        self._sources: OrderedDict[str, TokenBucket] = OrderedDict()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listen; returns the port (chosen by the system for 0)."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(progress_path("{namespace}", "{name}"), self._post)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; answers under way are finished."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        try:
            answer = await self._answer(request)
        except ApiError as error:
            log.warning("a post could not be served: %s", error)
            answer = _error(503, "the API server does not answer; try again")
        self._count(answer.status)
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        source = request.remote or ""
        if self._is_blocked(source):
            return _error(429, "too many refused tokens from this address")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return self._refuse(source, 401, "a bearer token is needed")
        try:
            poster = await self._gate.admit(token.strip())
        except TokenRefusedError as error:
            return self._refuse(source, 401, str(error))
        if (poster.namespace, poster.job) != (request.match_info["namespace"], request.match_info["name"]):
            return self._refuse(source, 403, f"the token speaks for {poster.namespace}/{poster.job}")
        try:
            post = ProgressPost.model_validate_json(await request.read())
        except ValidationError as error:
            return _error(422, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]))
        answer = await self._intake.take(poster, post)
        if answer.reply is None:
            return _error(answer.status, answer.error)
        return web.Response(status=answer.status, text=answer.reply.to_json(), content_type="application/json")

    def _is_blocked(self, source: str) -> bool:
        bucket = self._sources.get(source)
        return bucket is not None and bucket.wait_seconds() > 0

    def _refuse(self, source: str, status: int, message: str) -> web.Response:
        bucket = self._sources.get(source)
        if bucket is None:
            bucket = self._sources[source] = TokenBucket(BAD_TOKENS_PER_SECOND, BAD_TOKENS_AT_ONCE, self._clock)
            while len(self._sources) > MAX_SOURCES:
                self._sources.popitem(last=False)
        bucket.take()
        return _error(status, message)


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
