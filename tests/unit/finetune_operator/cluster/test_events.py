from __future__ import annotations

import pytest

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.events import EventWriter
from finetune_operator.plan.decision import Event
from tests.support.fake_api import Call, FakeApi, unreachable
from tests.support.operator_values import make_job

PAUSED = Event(reason="Paused", message="Paused at step 7", key="1")


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def writer(api: FakeApi) -> EventWriter:
    return EventWriter(Client(api), identity="pod-1", now=api.clock.now)


def told(api: FakeApi) -> list[tuple[str, str]]:
    return [(manifest["reason"], manifest["message"]) for manifest in api.find("events")]


async def test_an_event_says_what_and_of_whom(api: FakeApi) -> None:
    events = writer(api)
    events.write(make_job(), PAUSED)
    await events.flush()
    (event,) = api.find("events")
    assert event["involvedObject"] == {
        "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "demo", "namespace": "default", "uid": "uid-job",
    }  # fmt: skip
    assert (event["type"], event["reason"], event["message"], event["source"]) == (
        "Normal", "Paused", "Paused at step 7", {"component": "finetune-operator"},
    )  # fmt: skip


async def test_the_same_event_is_one_line_also_after_a_restart(api: FakeApi) -> None:
    for _ in range(2):
        events = writer(api)
        events.write(make_job(), PAUSED)
        await events.flush()
    assert told(api) == [("Paused", "Paused at step 7")]


async def test_another_key_is_another_event(api: FakeApi) -> None:
    events = writer(api)
    events.write(make_job(), PAUSED)
    events.write(make_job(), Event(reason="Paused", message="Paused at step 9", key="2"))
    events.write(make_job(uid="another"), PAUSED)
    await events.flush()
    assert len(told(api)) == 3


async def test_frequent_events_are_thinned(api: FakeApi) -> None:
    """CheckpointSaved: at most one a minute and job, unless somebody asked for it."""
    events = writer(api)
    for step in range(5):
        events.write(make_job(), Event(reason="CheckpointSaved", message=f"step {step}", key=str(step), min_interval_seconds=60))
        api.clock.advance(20)
    await events.flush()
    assert sorted(message for _, message in told(api)) == ["step 0", "step 3"]


async def test_a_refused_event_stops_nothing(api: FakeApi) -> None:
    def away(_call: Call, _moment: str) -> None:
        raise unreachable()

    events = writer(api)
    api.fault = away
    events.write(make_job(), PAUSED)
    await events.flush()
    api.fault = None
    events.write(make_job(), Event(reason="Resumed", message="again"))
    await events.flush()
    assert told(api) == [("Resumed", "again")]
