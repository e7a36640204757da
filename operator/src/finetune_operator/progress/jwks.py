"""Verifying tokens offline, with the API server's public keys: for installations that may not create TokenReviews."""

from __future__ import annotations

from collections.abc import Callable

import jwt

from finetune_api.contract.env import PROGRESS_AUDIENCE
from finetune_operator.cluster.client import Client
from finetune_operator.progress.tokens import Claims, TokenError

DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"
REFRESH_SECONDS = 3600.0
MIN_REFRESH_SECONDS = 10.0
"""An unknown key id makes the keys be read again, at most this often."""
ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


class JwksAuthenticator:
    """Checks signature, issuer and audience. The look-up has checked the time, and checks whether the pod still exists."""

    def __init__(self, client: Client, *, clock: Callable[[], float], issuer: str | None = None) -> None:
        self._client = client
        self._clock = clock
        self._issuer = issuer
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None

    async def check(self, token: str, claims: Claims) -> None:
        """Raise :class:`TokenError` unless a key of the API server signed the token, for the pod it names."""
        key = await self._key(claims.key_id)
        try:
            payload = jwt.decode(
                token, key, algorithms=ALGORITHMS, audience=PROGRESS_AUDIENCE, issuer=self._issuer, options={"verify_exp": False}
            )
        except jwt.InvalidTokenError as error:
            raise TokenError(str(error)) from error
        assert payload["kubernetes.io"]["pod"]["uid"] == claims.pod_uid, "claims were read from this very token"

    async def _key(self, key_id: str) -> jwt.PyJWK:
        age = self._clock() - self._read_at if self._read_at is not None else None
        if age is None or age > REFRESH_SECONDS or (key_id not in self._keys and age > MIN_REFRESH_SECONDS):
            await self._read()
        if key_id not in self._keys:
            raise TokenError("the token was signed with an unknown key")
        return self._keys[key_id]

    async def _read(self) -> None:
        if self._issuer is None:
            self._issuer = str((await self._client.raw(DISCOVERY_PATH))["issuer"])
        document = await self._client.raw(JWKS_PATH)
        self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(document).keys if key.key_id is not None}
        self._read_at = self._clock()
