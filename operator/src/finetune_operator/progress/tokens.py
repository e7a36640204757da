"""Who posts: an audience-bound service account token → pod uid → owner Job uid → FineTuneJob uid.

Labels are not believed: any pod may carry them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from finetune_api.constants import KIND
from finetune_api.contract.env import PROGRESS_AUDIENCE
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.resources import JOBS, PODS, TOKEN_REVIEWS
from finetune_operator.plan.names import run_of

CACHE_SECONDS = 300.0
CACHE_SIZE = 20_000
_EXTRA = "authentication.kubernetes.io/"


class TokenError(Exception):
    """The token is not valid."""


class NotOwnerError(Exception):
    """A valid token of a pod that belongs to no FineTuneJob."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, before anybody has vouched for it."""

    namespace: str
    pod: str
    pod_uid: str
    key_id: str
    """Of the key that signed it, by its header."""
    expires: float


@dataclass(frozen=True, slots=True)
class Poster:
    """A pod that belongs to a FineTuneJob."""

    namespace: str
    job: str
    job_uid: str
    run: int | None = None
    """Run of the pod; None for a pod of another kind."""


class Authenticator(Protocol):
    """Vouches for a token."""

    async def check(self, token: str, claims: Claims) -> None:
        """Raise :class:`TokenError` unless the token is genuine."""
        ...


def read_claims(token: str, now: float) -> Claims:
    """The claims, if audience and times are right; the signature is not looked at. Cheap: it comes before any request."""
    try:
        header = jwt.get_unverified_header(token)
        payload = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise TokenError("this is no JSON web token") from error
    audience = payload.get("aud")
    if PROGRESS_AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise TokenError(f"the token's audience is not {PROGRESS_AUDIENCE}")
    expires = payload.get("exp")
    if not isinstance(expires, int | float) or expires <= now:
        raise TokenError("the token has expired")
    bound = payload.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    if not isinstance(bound, dict) or not isinstance(pod, dict):
        raise TokenError("the token is not bound to a pod")
    return Claims(
        namespace=str(bound.get("namespace", "")),
        pod=str(pod.get("name", "")),
        pod_uid=str(pod.get("uid", "")),
        key_id=str(header.get("kid", "")),
        expires=float(expires),
    )


class TokenReviewAuthenticator:
    """Asks the API server, which also knows whether the pod still exists."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def check(self, token: str, claims: Claims) -> None:
        """TokenReview with our audience; what it says of the pod must be what the token says."""
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
        }
        status = (await self._client.create(TOKEN_REVIEWS, None, review)).get("status") or {}
        if not status.get("authenticated") or PROGRESS_AUDIENCE not in (status.get("audiences") or ()):
            raise TokenError("the API server does not accept the token")
        extra = (status.get("user") or {}).get("extra") or {}
        if claims.pod_uid not in (extra.get(f"{_EXTRA}pod-uid") or ()):
            raise TokenError("the token belongs to another pod")


class PosterLookup:
    """Token → FineTuneJob, remembered for five minutes by the whole token's digest (its id alone could be claimed by a forged one)."""

    def __init__(self, client: Client, authenticator: Authenticator, *, now: Callable[[], float]) -> None:
        self._client = client
        self._authenticator = authenticator
        self._now = now
        self._cache: OrderedDict[bytes, tuple[float, Poster]] = OrderedDict()

    async def find(self, token: str) -> Poster:
        """Raises :class:`TokenError` (401) or :class:`NotOwnerError` (403)."""
        claims = read_claims(token, self._now())
        key = hashlib.sha256(token.encode()).digest()
        cached = self._cache.get(key)
        if cached is not None and cached[0] > self._now():
            return cached[1]
        await self._authenticator.check(token, claims)
        poster = await self._owner(claims)
        self._cache[key] = (min(claims.expires, self._now() + CACHE_SECONDS), poster)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return poster

    async def _owner(self, claims: Claims) -> Poster:
        """Follow controller references by uid."""
        pod = await self._client.get(PODS, claims.namespace, claims.pod)
        if pod is None or pod["metadata"]["uid"] != claims.pod_uid:
            raise TokenError("the token's pod is gone")
        owner = _controller(pod, "Job")
        workload = await self._client.get(JOBS, claims.namespace, owner["name"]) if owner is not None else None
        if owner is None or workload is None or workload["metadata"]["uid"] != owner["uid"]:
            raise NotOwnerError("the token's pod belongs to no Job")
        job = _controller(workload, KIND)
        if job is None:
            raise NotOwnerError("the token's pod belongs to no FineTuneJob")
        return Poster(claims.namespace, job["name"], job["uid"], run_of(job["name"], owner["name"]))


def _controller(manifest: dict[str, Any], kind: str) -> dict[str, Any] | None:
    owners = manifest["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller") and owner.get("kind") == kind), None)
