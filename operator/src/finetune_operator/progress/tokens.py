"""Who posts: a projected service account token, bound to its pod and to our audience, names the FineTuneJob it may speak for.

Labels prove nothing (whoever may create pods sets them), so the chain of controllers counts: the token's pod uid -> its Job -> its
FineTuneJob. A verdict is kept for a few minutes. The cheap checks (audience, expiry, a known shape) come before the API server is asked.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jwt

from finetune_api.constants import KIND
from finetune_api.contract.env import PROGRESS_AUDIENCE
from finetune_operator.cluster.client import JOBS, PODS, TOKENREVIEWS, Api
from finetune_operator.plan.observed import Manifest

VERDICT_SECONDS = 300.0
MAX_VERDICTS = 20_000


class Poster(NamedTuple):
    """The job a token speaks for."""

    namespace: str
    job: str
    job_uid: str
    run_uid: str
    """uid of the batch/v1 Job that controls the pod."""
    pod: str


class TokenRefusedError(Exception):
    """The token proves nothing; the message says why."""


class Authenticator(Protocol):
    """Tells whether a token was really issued by this cluster for our audience."""

    async def genuine(self, token: str) -> bool:
        """True if it is valid now."""


class TokenReviewer:
    """Asks the API server (TokenReview)."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def genuine(self, token: str) -> bool:
        """True if the API server says that the token is valid for our audience; a token whose pod is gone is not."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
        }
        status = (await self._api.create(TOKENREVIEWS, None, review)).get("status") or {}
        return bool(status.get("authenticated")) and PROGRESS_AUDIENCE in (status.get("audiences") or ())


class OfflineVerifier:
    """Checks the signature against the API server's published keys: for installations that may not create TokenReviews."""

    def __init__(self, keys: Callable[[], Any], issuer: str | None) -> None:
        """``keys`` is an async function that gives the JWKS document; ``issuer`` None accepts what the first key set signed for."""
        self._keys, self._issuer = keys, issuer
        self._known: jwt.PyJWKSet | None = None

    async def genuine(self, token: str) -> bool:
        """True if one of the keys signed it for our audience and it has not run out."""
        if self._known is None or not self._signed(token):
            self._known = jwt.PyJWKSet.from_dict(await self._keys())
        return self._signed(token)

    def _signed(self, token: str) -> bool:
        assert self._known is not None
        wanted = jwt.get_unverified_header(token).get("kid")
        for key in self._known.keys:
            if wanted is not None and key.key_id != wanted:
                continue
            try:
                jwt.decode(token, key, algorithms=["RS256", "ES256", "ES384", "RS512"], audience=PROGRESS_AUDIENCE, issuer=self._issuer)
            except jwt.InvalidTokenError:
                continue
            return True
        return False


class TokenGate:
    """Turns a bearer token into the job it speaks for."""

    def __init__(self, api: Api, authenticator: Authenticator, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, ``wall_clock`` seconds since the epoch (for token expiry)."""
        self._api, self._authenticator, self._clock, self._wall_clock = api, authenticator, clock, wall_clock
        self._verdicts: OrderedDict[str, tuple[float, Poster]] = OrderedDict()

    async def admit(self, token: str) -> Poster:
        """The job of a genuine token.

        Raises :class:`TokenRefusedError`, or :class:`finetune_operator.cluster.errors.ApiError` if the API server cannot be asked.
        """
        claims = self._plausible(token)
        key = hashlib.sha256(token.encode()).hexdigest()
        known = self._verdicts.get(key)
        if known is not None and self._clock() - known[0] < VERDICT_SECONDS:
            return known[1]
        if not await self._authenticator.genuine(token):
            raise TokenRefusedError("the API server does not accept the token")
        poster = await self._owner_of(claims)
        self._verdicts[key] = (self._clock(), poster)
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > MAX_VERDICTS:
            self._verdicts.popitem(last=False)
        return poster

    def _plausible(self, token: str) -> dict[str, Any]:
        """Claims of a token that looks like one of ours and has not run out; nothing is proven yet."""
        try:
            claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError as error:
            raise TokenRefusedError("not a JSON web token") from error
        audience = claims.get("aud")
        if PROGRESS_AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
            raise TokenRefusedError(f"the token's audience is not {PROGRESS_AUDIENCE}")
        if not isinstance(expires := claims.get("exp"), int | float) or expires < self._wall_clock():
            raise TokenRefusedError("the token has expired")
        if not isinstance(bound := claims.get("kubernetes.io"), dict) or not isinstance(bound.get("pod"), dict):
            raise TokenRefusedError("the token is not bound to a pod")
        return bound

    async def _owner_of(self, bound: dict[str, Any]) -> Poster:
        namespace, name, uid = str(bound.get("namespace")), str(bound["pod"].get("name")), bound["pod"].get("uid")
        pod = await self._api.get(PODS, namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            raise TokenRefusedError(f"pod {namespace}/{name} is gone")
        run = _controller(pod, "Job")
        job = await self._api.get(JOBS, namespace, run["name"]) if run is not None else None
        if run is None or job is None or job["metadata"]["uid"] != run["uid"]:
            raise TokenRefusedError(f"pod {namespace}/{name} belongs to no Job")
        owner = _controller(job, KIND)
        if owner is None:
            raise TokenRefusedError(f"pod {namespace}/{name} belongs to no {KIND}")
        return Poster(namespace, str(owner["name"]), str(owner["uid"]), str(run["uid"]), name)


def _controller(manifest: Manifest, kind: str) -> Manifest | None:
    owners = manifest["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller") and owner.get("kind") == kind), None)
