"""The HTTP side of the progress protocol. Every replica serves it; replies come from what the watch knows of the job."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import web
from pydantic import ValidationError

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import FineTuneProgress, ProgressPost, ProgressReply, progress_path
from finetune_api.models.status import StatusProgress
from finetune_operator.clocks import Clocks
from finetune_operator.cluster.errors import ApiError, NotFoundError
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobLookup, Known
from finetune_operator.plan.commands import commands_of
from finetune_operator.plan.conditions import format_time
from finetune_operator.plan.report import News, news_of
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.numbers import progress_of
from finetune_operator.progress.tokens import NotOwnerError, Poster, PosterLookup, TokenError
from finetune_operator.progress.writer import ProgressWriter

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024
REFUSALS_PER_SECOND, REFUSALS_AT_ONCE, MAX_SOURCES = 1.0, 20.0, 4096
"""A refused token may cost the API server a request: an address that sends many is not listened to for a while."""


class ProgressEndpoint:
    """Answers posts."""

    def __init__(
        self, jobs: JobLookup, posters: PosterLookup, writer: ProgressWriter, clocks: Clocks, *, on_post: Callable[[int, float], None]
    ) -> None:
        self._jobs = jobs
        self._posters = posters
        self._writer = writer
        self._clocks = clocks
        self._on_post = on_post
        self._refusals: OrderedDict[str, TokenBucket] = OrderedDict()

    def build_app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post(progress_path("{namespace}", "{name}"), self._post)
        return app

    async def _post(self, request: web.Request) -> web.Response:
        started = self._clocks.monotonic()
        try:
            response = await self._answer(request)
        except web.HTTPException as error:
            self._on_post(error.status, self._clocks.monotonic() - started)
            raise
        self._on_post(response.status, self._clocks.monotonic() - started)
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        key = JobKey(request.match_info["namespace"], request.match_info["name"])
        poster = await self._authorise(request, key)
        uid = poster.job_uid
        post = await _read(request)
        known = await self._find(key)
        if known is None or known.uid != uid:
            return _refusal(404, f"there is no FineTuneJob {key} with the uid of this pod's job")
        before = self._writer.newest(key, uid) or known.progress
        run = poster.run or known.run
        if before is not None and _is_older(post.finetune, run, before):
            return _refusal(409, f"attempt {before.attempt} of run {before.run} is known; this one must stop")
        progress = progress_of(post, known.merged, before=before, run=run, now=format_time(self._clocks.now()))
        news: News = news_of(post.finetune) if post.finetune is not None else frozenset()
        try:
            await self._writer.take(key, uid, progress, news=news, known=_held(known))
        except NotFoundError:
            return _refusal(404, f"FineTuneJob {key} is gone")
        except ApiError as error:
            log.warning("post not stored", extra={"job": str(key), "error": str(error)})
            return _refusal(503, "the report could not be stored; post it again")
        newest = self._jobs.known(key) or known
        reply = ProgressReply(
            contract_version=CONTRACT_VERSION, commands=list(commands_of(newest.pause, newest.request, newest.pause_policy, poster.run))
        )
        return web.Response(text=reply.to_json(), content_type="application/json")

    async def _authorise(self, request: web.Request, key: JobKey) -> Poster:
        """The pod that posts, of this FineTuneJob; raises the refusal."""
        source = request.remote or ""
        if source in self._refusals and self._refusals[source].wait_seconds() > 0:
            raise web.HTTPTooManyRequests(text="too many refused tokens from this address", headers={"Retry-After": "5"})
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise web.HTTPUnauthorized(text="a bearer token is needed")
        try:
            poster = await self._posters.find(token.strip())
        except TokenError as error:
            self._count_refusal(source)
            raise web.HTTPUnauthorized(text=str(error)) from error
        except NotOwnerError as error:
            self._count_refusal(source)
            raise web.HTTPForbidden(text=str(error)) from error
        except ApiError as error:
            raise web.HTTPServiceUnavailable(text="the token cannot be checked now") from error
        if (poster.namespace, poster.job) != (key.namespace, key.name):
            raise web.HTTPForbidden(text=f"this pod belongs to FineTuneJob {poster.namespace}/{poster.job}")
        return poster

    async def _find(self, key: JobKey) -> Known | None:
        try:
            return await self._jobs.find(key)
        except ApiError as error:
            raise web.HTTPServiceUnavailable(text="the job cannot be read now") from error

    def _count_refusal(self, source: str) -> None:
        bucket = self._refusals.get(source)
        if bucket is None:
            bucket = self._refusals[source] = TokenBucket(REFUSALS_PER_SECOND, clock=self._clocks.monotonic, burst=REFUSALS_AT_ONCE)
            while len(self._refusals) > MAX_SOURCES:
                self._refusals.popitem(last=False)
        bucket.take()


def _held(known: Known) -> News:
    """What the job's status says already, merged or not."""
    merged = {("checkpoint", *checkpoint) for checkpoint in known.merged.checkpoints} | {
        ("fact", *fact) for fact in known.merged.facts.items()
    }
    return known.news | merged


def _is_older(post: FineTuneProgress | None, run: int, before: StatusProgress) -> bool:
    """Whether a post comes from an attempt that was replaced. Attempt 0 has claimed no number yet; a stock client knows of none."""
    if post is None:
        return run < before.run
    return post.run < before.run or (post.run == before.run and 0 < post.attempt < before.attempt)


async def _read(request: web.Request) -> ProgressPost:
    try:
        return ProgressPost.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise web.HTTPUnprocessableEntity(text=f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _refusal(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)
