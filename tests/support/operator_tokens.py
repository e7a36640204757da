"""Service account tokens as the API server issues them, and an API server that vouches for them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from finetune_operator.cluster.client import Answer
from tests.support.fake_api import FakeApi, Manifest
from tests.support.operator_cluster import NAMESPACE, job_manifest

ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass
class Issuer:
    """Signs tokens with a key of its own."""

    key_id: str = "key-1"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def token(self, pod: str, pod_uid: str, *, expires: float, **changes: Any) -> str:
        claims = {
            "aud": ["finetune-operator"],
            "exp": int(expires),
            "iss": ISSUER,
            "jti": "token-1",
            "kubernetes.io": {
                "namespace": NAMESPACE,
                "pod": {"name": pod, "uid": pod_uid},
                "serviceaccount": {"name": "default", "uid": "u"},
            },
            **changes,
        }
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.key_id})

    def jwks(self) -> Manifest:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}


@dataclass
class VouchingApi(FakeApi):
    """Answers TokenReviews for the tokens it was told of, and serves the issuer's keys."""

    issuer: Issuer = field(default_factory=Issuer)
    genuine: dict[str, str] = field(default_factory=dict)
    """Token -> pod uid."""
    reviews: int = 0

    async def request(self, method: str, path: str, *, query: Any, body: Any, content_type: str) -> Answer:
        if path == "/openid/v1/jwks":
            return Answer(200, {}, self.issuer.jwks())
        if path == "/.well-known/openid-configuration":
            return Answer(200, {}, {"issuer": ISSUER})
        if path.endswith("/tokenreviews"):
            self.reviews += 1
            return Answer(201, {}, {"status": self.review(body["spec"]["token"])})
        return await super().request(method, path, query=query, body=body, content_type=content_type)

    def review(self, token: str) -> Manifest:
        if token not in self.genuine:
            return {"authenticated": False, "error": "token has been invalidated"}
        extra = {"authentication.kubernetes.io/pod-uid": [self.genuine[token]]}
        return {
            "authenticated": True,
            "audiences": ["finetune-operator"],
            "user": {"username": "system:serviceaccount:default:default", "extra": extra},
        }

    def populate(self, job: str = "demo") -> str:
        """A job with one pod of run 1; returns the pod's token."""
        owner = self.add("finetunejobs", job_manifest(job))["metadata"]["uid"]
        run = self.add("jobs", child(f"{job}-r1", "FineTuneJob", job, owner), namespace=NAMESPACE)["metadata"]["uid"]
        pod = self.add("pods", child(f"{job}-r1-0", "Job", f"{job}-r1", run), namespace=NAMESPACE)["metadata"]["uid"]
        token = self.issuer.token(f"{job}-r1-0", pod, expires=self.clock.now().timestamp() + 3600)
        self.genuine[token] = pod
        return token


def child(name: str, kind: str, owner: str, owner_uid: str) -> Manifest:
    """An object with a controller."""
    reference = {"kind": kind, "name": owner, "uid": owner_uid, "controller": True}
    return {"metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [reference]}}
