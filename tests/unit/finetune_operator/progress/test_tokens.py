from __future__ import annotations

import jwt
import pytest

from finetune_operator.cluster.client import Client
from finetune_operator.progress.jwks import JwksAuthenticator
from finetune_operator.progress.tokens import Authenticator, NotOwnerError, Poster, PosterLookup, TokenError, TokenReviewAuthenticator
from tests.support.operator_cluster import NAMESPACE
from tests.support.operator_tokens import Issuer, VouchingApi, child


@pytest.fixture
def api() -> VouchingApi:
    return VouchingApi()


def lookup(api: VouchingApi, mode: str = "review") -> PosterLookup:
    client = Client(api)
    authenticator: Authenticator = (
        TokenReviewAuthenticator(client) if mode == "review" else JwksAuthenticator(client, clock=api.clock.monotonic)
    )
    return PosterLookup(client, authenticator, now=lambda: api.clock.now().timestamp())


@pytest.mark.parametrize("mode", ["review", "jwks"])
async def test_a_pod_s_token_names_its_job(api: VouchingApi, mode: str) -> None:
    """Design §4: pod uid → owner Job uid → CR uid, online and offline."""
    token = api.populate()
    assert await lookup(api, mode).find(token) == Poster(NAMESPACE, "demo", "uid-1", 1)


@pytest.mark.parametrize("mode", ["review", "jwks"])
async def test_a_forged_token_is_refused(api: VouchingApi, mode: str) -> None:
    api.populate()
    forged = Issuer().token("demo-r1-0", "uid-3", expires=api.clock.now().timestamp() + 60)
    with pytest.raises(TokenError):
        await lookup(api, mode).find(forged)


@pytest.mark.parametrize("mode", ["review", "jwks"])
async def test_a_token_whose_pod_is_gone_is_refused(api: VouchingApi, mode: str) -> None:
    """A replaced pod of the same name has another uid."""
    token = api.populate()
    pod = api.objects.pop(("pods", NAMESPACE, "demo-r1-0"))
    with pytest.raises(TokenError):
        await lookup(api, mode).find(token)
    api.add("pods", {**pod, "metadata": {**pod["metadata"]}})
    with pytest.raises(TokenError):
        await lookup(api, mode).find(token)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["https://kubernetes.default.svc"]},
        {"exp": 1},
        {"kubernetes.io": {"namespace": NAMESPACE}},
        {"kubernetes.io": "x"},
        {"exp": "soon"},
    ],
)
async def test_cheap_checks_come_before_any_request(api: VouchingApi, claims: dict[str, object]) -> None:
    """Trial 23: audience, expiry and shape are looked at first."""
    api.populate()
    expires = api.clock.now().timestamp() + 60
    token = api.issuer.token("demo-r1-0", "uid-3", expires=expires)
    payload = {**jwt.decode(token, options={"verify_signature": False}), **claims}
    bad = jwt.encode(payload, api.issuer.key, algorithm="RS256") if claims.get("exp") != "soon" else "a.b.c"
    with pytest.raises(TokenError):
        await lookup(api).find(bad)
    assert api.reviews == 0
    assert api.calls == []


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a" * 5000, "🙂.🙂.🙂"])
async def test_nonsense_is_refused(api: VouchingApi, token: str) -> None:
    with pytest.raises(TokenError):
        await lookup(api).find(token)


async def test_a_verdict_is_kept_for_five_minutes(api: VouchingApi) -> None:
    """Trial 23: cached, then asked again: a token of a deleted pod ends."""
    token = api.populate()
    posters = lookup(api)
    for _ in range(10):
        await posters.find(token)
    assert api.reviews == 1
    api.clock.advance(301)
    await posters.find(token)
    assert api.reviews == 2
    del api.genuine[token]
    api.clock.advance(301)
    with pytest.raises(TokenError):
        await posters.find(token)


async def test_a_verdict_is_not_kept_longer_than_the_token(api: VouchingApi) -> None:
    api.populate()
    short = api.issuer.token("demo-r1-0", "uid-3", expires=api.clock.now().timestamp() + 20)
    api.genuine[short] = "uid-3"
    posters = lookup(api)
    await posters.find(short)
    api.clock.advance(21)
    with pytest.raises(TokenError, match="expired"):
        await posters.find(short)


async def test_labels_prove_nothing(api: VouchingApi) -> None:
    """A pod that only calls itself the job's."""
    api.populate()
    foreign = child("stranger", "ReplicaSet", "demo-r1", "uid-2")
    foreign["metadata"]["labels"] = {"finetune.dev/job": "demo"}
    uid = api.add("pods", foreign)["metadata"]["uid"]
    token = api.issuer.token("stranger", uid, expires=api.clock.now().timestamp() + 60)
    api.genuine[token] = uid
    with pytest.raises(NotOwnerError):
        await lookup(api).find(token)


async def test_a_job_of_somebody_else_proves_nothing(api: VouchingApi) -> None:
    """A pod of a Job that no FineTuneJob controls."""
    run = api.add("jobs", {"metadata": {"name": "theirs", "namespace": NAMESPACE}})["metadata"]["uid"]
    uid = api.add("pods", child("theirs-0", "Job", "theirs", run))["metadata"]["uid"]
    token = api.issuer.token("theirs-0", uid, expires=api.clock.now().timestamp() + 60)
    api.genuine[token] = uid
    with pytest.raises(NotOwnerError):
        await lookup(api).find(token)


async def test_offline_keys_are_read_again_for_an_unknown_one(api: VouchingApi) -> None:
    """Key rotation of the API server; not more often than every 10 s, whatever is sent."""
    token = api.populate()
    posters = lookup(api, "jwks")
    await posters.find(token)
    api.issuer = Issuer(key_id="key-2")
    rotated = api.issuer.token("demo-r1-0", "uid-3", expires=api.clock.now().timestamp() + 600)
    with pytest.raises(TokenError):
        await posters.find(rotated)
    api.clock.advance(11)
    assert (await posters.find(rotated)).job == "demo"


async def test_offline_tokens_of_another_issuer_or_algorithm_are_refused(api: VouchingApi) -> None:
    api.populate()
    expires = api.clock.now().timestamp() + 60
    stranger = api.issuer.token("demo-r1-0", "uid-3", expires=expires, iss="https://elsewhere")
    payload = jwt.decode(stranger, options={"verify_signature": False})
    unsigned = jwt.encode(payload, "", algorithm="none", headers={"kid": "key-1"})
    for token in (stranger, unsigned):
        with pytest.raises(TokenError):
            await lookup(api, "jwks").find(token)
