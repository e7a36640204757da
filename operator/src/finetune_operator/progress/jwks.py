"""Verifying tokens offline, with the API server's public keys: for installations that may not create TokenReviews."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from finetune_operator.cluster.client import Client
from finetune_operator.progress.tokens import Claims, TokenError, decode_part

DISCOVERY_PATH = "/.well-known/openid-configuration"
JWKS_PATH = "/openid/v1/jwks"
REFRESH_SECONDS = 3600.0
MIN_REFRESH_SECONDS = 10.0
"""An unknown key id makes the keys be read again, at most this often."""

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "ES256": (ec.SECP256R1(), hashes.SHA256()),
    "ES384": (ec.SECP384R1(), hashes.SHA384()),
}


class JwksAuthenticator:
    """Checks signature and issuer; whether the pod still exists is the look-up's part."""

    def __init__(self, client: Client, *, clock: Callable[[], float], issuer: str | None = None) -> None:
        self._client = client
        self._clock = clock
        self._issuer = issuer
        self._keys: dict[str, PublicKey] = {}
        self._read_at: float | None = None

    async def check(self, token: str, claims: Claims) -> None:
        """Raise :class:`TokenError` unless a key of the API server signed the token."""
        header = decode_part(token, 0)
        key = await self._key(str(header.get("kid", "")))
        if self._issuer is not None and claims.issuer != self._issuer:
            raise TokenError("the token has another issuer")
        signed, _, signature = token.rpartition(".")
        verify_signature(
            key, str(header.get("alg", "")), signed.encode(), base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        )

    async def _key(self, key_id: str) -> PublicKey:
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
        self._keys = {str(key.get("kid", "")): read_key(key) for key in document.get("keys") or () if key.get("kty") in ("RSA", "EC")}
        self._read_at = self._clock()


def read_key(document: dict[str, Any]) -> PublicKey:
    """A public key of a JWKS document."""
    if document["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_number(document["e"]), _number(document["n"])).public_key()
    curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[document["crv"]]
    return ec.EllipticCurvePublicNumbers(_number(document["x"]), _number(document["y"]), curve).public_key()


def verify_signature(key: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> None:
    """Check a JWT's signature; the algorithm must be the key's own kind (never ``none``, never a shared secret)."""
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256":
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            return
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm in _CURVES and len(signature) % 2 == 0:
            curve, digest = _CURVES[algorithm]
            if curve.name == key.curve.name:
                half = len(signature) // 2
                r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
                key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
                return
    except InvalidSignature as error:
        raise TokenError("the token's signature is not valid") from error
    raise TokenError(f"the token's algorithm {algorithm or 'none'} is not accepted")


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
