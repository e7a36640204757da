"""What happens between operator and API server: lost, doubled and reordered events, stale reads, two leaders for a moment, refused calls.

Whatever happens, the job comes to the same end, with one workload at a time and nothing left behind. The end of the session says how many
schedules were tried. ``FINETUNE_SOAK=1`` tries many more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_operator.cluster.client import Answer
from finetune_operator.cluster.errors import ApiError
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed
from finetune_operator.queue import RetryLater
from tests.support.fake_api import Call, FakeApi, Manifest, duplicate, refusal, unreachable
from tests.support.operator_cluster import JOBS_PATH, NAMESPACE, FakeCluster
from tests.support.reliability import Fault
from tests.unit.finetune_operator.test_crash import SAME_END, SCENARIOS, Scenario, Watchdog, summary

SOAK = os.environ.get("FINETUNE_SOAK") == "1"
SEEDS = range(200 if SOAK else 6)
STRIDE = 1 if SOAK else 30
"""Every how many-th API call is disturbed."""


def outcome(cluster: FakeCluster) -> dict[str, Any]:
    """What must be the same whatever disturbed the way there: not how many starts it took."""
    end = summary(cluster)
    same: dict[str, Any] = {
        name: end[name] for name in ("phase", "final", "replicas", "objects", "identity", "resolved", "cleaned") if name in end
    }
    shown = ("Ready", "Reconciling", "Stalled", "Succeeded", "Failed", "Suspended")
    return {**same, "conditions": [pair for pair in end.get("conditions", ()) if pair[0] in shown]}


async def play(scenario: Scenario, prepare: Callable[[FakeCluster], None] = lambda _cluster: None) -> FakeCluster:
    """Play a scenario to its end under a disturbance, watched all the time."""
    cluster = FakeCluster()
    watchdog = Watchdog(cluster)
    step = cluster.step

    def watched_step() -> None:
        step()
        watchdog.check()

    cluster.step = watched_step  # type: ignore[method-assign]
    prepare(cluster)
    await scenario(cluster)
    await cluster.settle(rounds=300, advance=True)
    return cluster


@pytest.fixture(params=sorted(SCENARIOS))
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return SCENARIOS[request.param]


def tell(fault: Fault, kind: str, tried: int) -> None:
    fault.strikes(kind, tried)
    fault.ends(SAME_END)


# --- calls that fail ---


@dataclass
class Disturbance:
    """Does something at the n-th call of a kind."""

    at: int
    act: Callable[[Call], Answer | None]
    moment: str = "before"
    writes_only: bool = True
    calls: int = 0

    def __call__(self, call: Call, moment: str) -> Answer | None:
        if self.writes_only and not call.is_write:
            return None
        if moment == "before":
            self.calls += 1
        if self.calls != self.at or moment != self.moment:
            return None
        self.at = -1
        return self.act(call)


def lose_connection(_call: Call) -> None:
    """Before the call: it never arrives. After it: it was carried out, and nobody knows."""
    raise unreachable()


async def count_calls(scenario: Scenario, *, writes_only: bool) -> tuple[dict[str, Any], int]:
    counter = Disturbance(-1, lambda _call: None, writes_only=writes_only)

    def prepare(cluster: FakeCluster) -> None:
        cluster.api.fault = counter

    cluster = await play(scenario, prepare)
    return outcome(cluster), counter.calls


def answer(status: int, reason: str, **headers: str) -> Callable[[Call], Answer]:
    """The call is refused; or it was carried out, and something on the way back says this in place of the answer."""
    return lambda _call: refusal(status, reason, **headers)


CALLS_THAT_FAIL: dict[str, tuple[Callable[[Call], Answer | None], str]] = {
    "connection lost before one of its API calls": (lose_connection, "before"),
    "connection lost after one of its API calls": (lose_connection, "after"),
    "API server answers 500 to one of its calls": (answer(500, "InternalError"), "before"),
    "API server answers 500 to one of its calls, yet has carried it out": (answer(500, "InternalError"), "after"),
    "API server answers 503 to one of its calls": (answer(503, "ServiceUnavailable"), "before"),
    "API server answers 503 to one of its calls, yet has carried it out": (answer(503, "ServiceUnavailable"), "after"),
    "API server answers 429 to one of its calls": (answer(429, "TooManyRequests", **{"Retry-After": "3"}), "before"),
}


@pytest.mark.parametrize("kind", CALLS_THAT_FAIL)
async def test_a_call_that_fails(scenario: Scenario, kind: str, fault: Fault) -> None:
    """A timeout after the commit looks like one before it: the next look tells. Each kind strikes other calls."""
    act, moment = CALLS_THAT_FAIL[kind]
    expected, calls = await count_calls(scenario, writes_only=False)
    first = 1 if SOAK else 1 + 3 * list(CALLS_THAT_FAIL).index(kind)
    tried = 0
    for at in range(first, calls + 1, STRIDE):

        def prepare(cluster: FakeCluster, at: int = at) -> None:
            cluster.api.fault = Disturbance(at, act, moment, writes_only=False)
            cluster.reconcile = tolerant(cluster)  # type: ignore[method-assign]

        assert outcome(await play(scenario, prepare)) == expected, f"call {at}"
        tried += 1
    tell(fault, f"operator: {kind}", tried)


async def test_an_overloaded_api_server_is_given_the_time_it_asks_for() -> None:
    cluster = FakeCluster()
    cluster.create()
    cluster.api.fault = Disturbance(1, answer(429, "TooManyRequests", **{"Retry-After": "7"}), writes_only=False)
    await cluster.reconcile()
    assert (cluster.wake, cluster.phase) == (7.0, "Pending")
    await cluster.until(lambda: cluster.phase == "Training", train=5)


def tolerant(cluster: FakeCluster) -> Callable[[], Coroutine[Any, Any, None]]:
    """``reconcile`` as the queue calls it: an error is retried."""
    reconcile = cluster.reconcile

    async def reconcile_again() -> None:
        try:
            await reconcile()
        except ApiError:
            cluster.wake = 0.0

    return reconcile_again


# --- two leaders ---


async def test_two_leaders_for_a_moment(scenario: Scenario, fault: Fault) -> None:
    """A leader stalls at any of its writes, another one acts, then the first one's write arrives after all."""
    expected, calls = await count_calls(scenario, writes_only=True)
    tried = 0
    for at in range(1, calls + 1, max(1, STRIDE // 10)):

        def prepare(cluster: FakeCluster, at: int = at) -> None:
            cluster.api = SecondLeader(cluster, at).install()
            cluster.reconcile = tolerant(cluster)  # type: ignore[method-assign]

        assert outcome(await play(scenario, prepare)) == expected
        tried += 1
    tell(fault, "operator: two leaders for a moment, a stalled one's write arrives late", tried)


class SecondLeader:
    """Another operator, which looks twice while the first one's n-th write is on its way."""

    def __init__(self, cluster: FakeCluster, at: int) -> None:
        self._cluster, self._left = cluster, at
        self._busy = False

    def install(self) -> FakeApi:
        api = self._cluster.api
        request = api.request

        async def interrupted(method: str, path: str, **rest: Any) -> Answer:
            if method != "GET" and not self._busy:
                self._left -= 1
                if self._left == 0:
                    await self._take_over()
            return await request(method, path, **rest)

        api.request = interrupted  # type: ignore[method-assign]
        return api

    async def _take_over(self) -> None:
        self._busy = True
        cluster = self._cluster
        first, events = cluster.reconciler, cluster.events
        second = cluster.new_operator()
        for _ in range(2):
            try:
                await second.reconcile(cluster.key)
                await cluster.events.flush()
            except RetryLater:
                pass
            cluster.step()
        cluster.reconciler, cluster.events = first, events
        self._busy = False


# --- stale reads ---


async def test_stale_reads(scenario: Scenario, fault: Fault) -> None:
    """The FineTuneJob is read as it was before its last change: what follows from that is refused by its version, not carried out."""
    expected, _ = await count_calls(scenario, writes_only=True)
    for seed in SEEDS:
        chance = random.Random(seed)  # noqa: S311 - a schedule

        def prepare(cluster: FakeCluster, chance: random.Random = chance) -> None:
            cluster.api.request = stale(cluster.api, chance)  # type: ignore[method-assign]
            cluster.reconcile = tolerant(cluster)  # type: ignore[method-assign]

        assert outcome(await play(scenario, prepare)) == expected, f"seed {seed}"
    tell(fault, "operator: stale reads of the job", len(SEEDS))


def stale(api: FakeApi, chance: random.Random) -> Callable[..., Coroutine[Any, Any, Answer]]:
    """Requests of which some reads of FineTuneJobs give the version before the present one."""
    request = api.request

    async def sometimes_stale(method: str, path: str, **rest: Any) -> Answer:
        answer = await request(method, path, **rest)
        if method != "GET" or "/finetunejobs/" not in path or answer.status != 200 or chance.random() > 0.2:
            return answer
        versions = [m for plural, kind, m in api.history if plural == "finetunejobs" and kind != "DELETED"]
        return Answer(200, answer.headers, duplicate(versions[-2])) if len(versions) > 1 else answer

    return sometimes_stale


# --- events ---


WATCHED = {name: f"{root}/namespaces/{NAMESPACE}/{name}" for name, root in (("jobs", "/apis/batch/v1"), ("pods", "/api/v1"))}
WATCHED["finetunejobs"] = JOBS_PATH


@dataclass
class Watch:
    """Lists and watches for a feed as kopf does; some events come late, twice, in another order, or never, and some watches are too old."""

    cluster: FakeCluster
    chance: random.Random
    marked: bool = True
    listed: int = 0
    since: dict[str, str] = field(default_factory=dict)
    late: list[tuple[str, str | None, Manifest]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.feed = JobFeed(self._mark, lambda _key: None)

    def _mark(self, _key: JobKey, _delay: float) -> None:
        self.marked = True

    def deliver(self) -> None:
        """What there is to hear now."""
        if self.chance.random() < 0.05:
            self.cluster.api.forget_the_past()
        batch = [*self.late, *(event for plural in WATCHED for event in self._heard(plural))]
        self.late = []
        for plural, kind, manifest in self._disturbed(batch):
            if plural == "finetunejobs":
                self.feed.job_event(kind, manifest)  # type: ignore[arg-type]
            else:
                self.feed.child_event(manifest)

    def _heard(self, plural: str) -> Iterator[tuple[str, str | None, Manifest]]:
        """Events since the last time; the whole list, without a word of what is gone, at first and after 410."""
        if plural in self.since:
            asked = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self.since[plural]}
            for event in self.cluster.api.send("GET", WATCHED[plural], **asked).body["events"]:
                manifest = event["object"]
                if event["type"] == "ERROR":
                    assert (manifest["code"], manifest["reason"]) == (410, "Expired")
                    del self.since[plural]
                    break
                self.since[plural] = manifest["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield plural, event["type"], manifest
        if plural not in self.since:
            self.listed += 1
            found = self.cluster.api.send("GET", WATCHED[plural]).body
            self.since[plural] = found["metadata"]["resourceVersion"]
            yield from ((plural, None, manifest) for manifest in found["items"])

    def _disturbed(self, events: list[tuple[str, str | None, Manifest]]) -> Iterator[tuple[str, str | None, Manifest]]:
        if self.chance.random() < 0.3:
            self.chance.shuffle(events)
        for event in events:
            luck = self.chance.random()
            if luck < 0.1:
                continue
            if luck < 0.2:
                self.late.append(event)
                continue
            yield event
            if luck > 0.9:
                yield event


async def test_events_lost_doubled_and_reordered(scenario: Scenario, fault: Fault) -> None:
    """Only what is marked, due or resynced is looked at: what events miss, wake-ups, lists after 410 Gone and the resync find."""
    expected, _ = await count_calls(scenario, writes_only=True)
    watches: list[Watch] = []
    for seed in SEEDS:

        def prepare(cluster: FakeCluster, seed: int = seed) -> None:
            watches.append(Watch(cluster, random.Random(seed)))  # noqa: S311 - a schedule
            cluster.reconcile = watched(cluster, watches[-1])  # type: ignore[method-assign]

        assert outcome(await play(scenario, prepare)) == expected, f"seed {seed}"
    assert sum(watch.listed for watch in watches) > len(WATCHED) * len(watches), "some watches were too old"
    tell(fault, "operator: events lost, doubled, reordered", len(SEEDS))


def watched(cluster: FakeCluster, watch: Watch, *, resync_seconds: float = 20.0) -> Callable[[], Coroutine[Any, Any, None]]:
    """``reconcile`` that looks only when an event, a wake-up or the resync says so."""
    reconcile = cluster.reconcile
    due, resync = 0.0, 0.0

    async def look_if_told() -> None:
        nonlocal due, resync
        watch.deliver()
        now = cluster.clock.monotonic()
        if not watch.marked and now < min(due, resync):
            return
        is_resync, before = now >= resync, cluster.fingerprint()
        watch.marked = False
        resync = now + resync_seconds
        await reconcile()
        due = now + cluster.wake if cluster.wake is not None and cluster.wake >= 0 else float("inf")
        if cluster.wake is None and not (is_resync and cluster.fingerprint() == before):
            cluster.wake = resync_seconds  # an event may be missing: until a resync finds nothing to do, it goes on

    return look_if_told
