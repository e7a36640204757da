from __future__ import annotations

import asyncio

import pytest

from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import NotLeaderError
from finetune_operator.cluster.lease import Election, LeaseLock, LeaseSettings
from tests.support.fake_api import Call, FakeApi, unreachable


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def lock(api: FakeApi, identity: str) -> LeaseLock:
    settings = LeaseSettings(namespace="default", name="op", identity=identity, lease_seconds=15, renew_deadline_seconds=10)
    return LeaseLock(Client(api), settings, Clocks(api.clock.now, api.clock.monotonic))


def holder(api: FakeApi) -> str:
    lease = api.get("leases", "op")
    assert lease is not None
    return str(lease["spec"]["holderIdentity"])


async def test_one_leads(api: FakeApi) -> None:
    one, two = lock(api, "one"), lock(api, "two")
    await one.attempt()
    await two.attempt()
    assert (one.is_leader(), two.is_leader()) == (True, False)
    with pytest.raises(NotLeaderError):
        two.check()


async def test_a_leader_that_renews_keeps_the_lead(api: FakeApi) -> None:
    one, two = lock(api, "one"), lock(api, "two")
    for _ in range(30):
        await one.attempt()
        await two.attempt()
        api.clock.advance(2)
    assert (one.is_leader(), two.is_leader(), holder(api)) == (True, False, "one")


async def test_a_dead_leader_is_replaced_within_20_seconds(api: FakeApi) -> None:
    """Design §4, HA."""
    one, two = lock(api, "one"), lock(api, "two")
    await one.attempt()
    seconds = 0
    while not two.is_leader():
        await two.attempt()
        api.clock.advance(2)
        seconds += 2
    assert 15 < seconds <= 20
    assert not one.is_leader()
    lease = api.get("leases", "op")
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)


async def test_a_released_lease_is_taken_at_once(api: FakeApi) -> None:
    one, two = lock(api, "one"), lock(api, "two")
    await one.attempt()
    await one.release()
    await two.attempt()
    assert (one.is_leader(), two.is_leader()) == (False, True)


async def test_a_stopped_process_knows_that_it_leads_no_more(api: FakeApi) -> None:
    """Issue §4: a SIGSTOPped ex-leader that wakes changes nothing; its clock went on."""
    one, two = lock(api, "one"), lock(api, "two")
    await one.attempt()
    api.clock.advance(16)
    await two.attempt()
    api.clock.advance(16)
    await two.attempt()
    assert two.is_leader()
    assert one.has_lost
    with pytest.raises(NotLeaderError):
        one.check()
    await one.attempt()
    assert (holder(api), one.is_leader()) == ("two", False)


async def test_a_restarted_process_of_the_same_name_waits_for_its_own_lease(api: FakeApi) -> None:
    """The old process may still be there: only time tells."""
    await lock(api, "one").attempt()
    again = lock(api, "one")
    await again.attempt()
    assert not again.is_leader()


async def test_an_api_server_that_is_away_costs_the_lead_after_the_deadline(api: FakeApi) -> None:
    one = lock(api, "one")
    await one.attempt()

    def away(_call: Call, _moment: str) -> None:
        raise unreachable()

    api.fault = away
    api.clock.advance(8)
    await one.attempt()
    assert one.is_leader()
    api.clock.advance(2)
    await one.attempt()
    assert one.has_lost


async def test_a_lease_taken_too_slowly_is_waited_out(api: FakeApi) -> None:
    """A busy API server at the start: nobody has led, so the process stays and leads by its next write."""
    one = lock(api, "one")

    def slow(_call: Call, moment: str) -> None:
        if moment == "before":
            api.clock.advance(6)

    api.fault = slow
    await one.attempt()
    assert (holder(api), one.is_leader(), one.has_lost) == ("one", False, False)
    api.fault = None
    while not one.is_leader():
        api.clock.advance(2)
        await one.attempt()
        assert not one.has_lost


async def test_two_that_try_at_once_do_not_both_lead(api: FakeApi) -> None:
    """The write carries the version that was read."""
    one, two = lock(api, "one"), lock(api, "two")
    await lock(api, "old").attempt()
    for each in (one, two):
        await each.attempt()
    api.clock.advance(16)
    await asyncio.gather(one.attempt(), two.attempt())
    assert one.is_leader() != two.is_leader()


class DiedError(Exception):
    """The process would have ended here."""


async def test_a_leader_that_cannot_renew_ends_the_process(api: FakeApi) -> None:
    """Design §4: exit past the renew deadline."""
    one = lock(api, "one")
    led = asyncio.Event()

    async def lead() -> None:
        led.set()
        await asyncio.Event().wait()

    def die() -> None:
        raise DiedError

    election = asyncio.create_task(Election(one, retry_seconds=0, lead=lead, die=die).run())
    await led.wait()

    def away(_call: Call, _moment: str) -> None:
        raise unreachable()

    api.fault = away
    api.clock.advance(11)
    with pytest.raises(DiedError):
        await election


async def test_an_ended_election_gives_up_the_lead_and_then_the_lease(api: FakeApi) -> None:
    one = lock(api, "one")
    led = asyncio.Event()
    order: list[str] = []

    async def lead() -> None:
        led.set()
        try:
            await asyncio.Event().wait()
        finally:
            order.append(holder(api))

    election = asyncio.create_task(Election(one, retry_seconds=0, lead=lead, die=lambda: None).run())
    await led.wait()
    election.cancel()
    await asyncio.gather(election, return_exceptions=True)
    assert (order, holder(api)) == (["one"], "")
