"""The store and the operator go away and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory, Untouched, losses
from tests.support.platform import SYSTEM_NAMESPACE, Platform
from tests.support.reliability import Fault

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
SPEC: dict[str, Any] = {"training": {"maxSteps": 900}, "checkpoint": {"steps": 30}}
AWAY_SECONDS = 60.0
PAUSE_SECONDS = 20


class StoreSwitch:
    """Takes the store's pod away and brings it back; its volume stays."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._kubectl = platform.kubectl.within(SYSTEM_NAMESPACE)
        self._is_off = False

    def off(self) -> None:
        """Nobody answers any more."""
        self._is_off = True
        self._kubectl("scale", "deployment/finetune-minio", "--replicas=0")
        self._kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=store", "--timeout=60s")

    def on(self) -> None:
        """As before."""
        if self._is_off:
            self._kubectl("scale", "deployment/finetune-minio", "--replicas=1")
            self._kubectl("rollout", "status", "deployment/finetune-minio", "--timeout=120s")
            self._platform.reconnect()
            self._is_off = False


@pytest.fixture
def store_switch(platform: Platform) -> Iterator[StoreSwitch]:
    """The switch; on again after the test."""
    switch = StoreSwitch(platform)
    yield switch
    switch.on()


@pytest.mark.parametrize("moment", ["run", "pause"])
def test_operator_away(run_job: JobFactory, untouched: Untouched, platform: Platform, moment: str, fault: Fault) -> None:
    """The operator's pod is deleted during a run and during a pause: training goes on, nothing is restarted."""
    reference = untouched(SPEC)
    job = run_job(f"operator-away-{moment}", SPEC)
    job.wait_step(10)
    uids = {p["metadata"]["uid"] for p in job.pods()}
    if moment == "pause":
        job.scale(0)
    fault.strikes(f"the operator's pod deleted during a {moment}")
    platform.kubectl.within(SYSTEM_NAMESPACE)(
        "delete", "pod", "-l", "app.kubernetes.io/component=operator", "--wait=false", "--grace-period=1"
    )
    if moment == "pause":
        status = job.wait_phase("Paused", within=240)
        assert status["pause"]["saved"] is True
        assert len(status["attempts"]) == 1
        assert job.pods() == []
        fault.ends("Paused, acknowledged", 0)
    else:
        step = job.status["progress"]["step"]
        job.wait_step(step + 100)
        assert {p["metadata"]["uid"] for p in job.pods()} == uids
        assert job.status["run"] == 1
        assert losses(job) == losses(reference)
        fault.ends("trained on in the same pods", 0)


def test_store_away_during_saves(run_job: JobFactory, untouched: Untouched, store_switch: StoreSwitch, fault: Fault) -> None:
    """Training does not stop while the store is away over many saves, be it to the end; then uploads catch up, nothing is trained again."""
    expected = losses(untouched(SPEC))
    job = run_job("store-away", SPEC)
    job.wait_step(30)
    fault.strikes("the store is away over several saves")
    store_switch.off()
    before = job.status["progress"]["step"]
    threading.Event().wait(AWAY_SECONDS)  # the fault itself
    job.wait_step(before + 150)
    assert job.condition("CheckpointUploadFailing").get("status") == "True", "it is said"
    store_switch.on()
    final = job.wait_phase("Succeeded")
    fault.recovered()
    assert final["run"] == 1, "nothing was restarted"
    assert losses(job) == expected
    fault.ends_with(final)


def test_pause_while_the_store_is_away(run_job: JobFactory, store_switch: StoreSwitch, fault: Fault) -> None:
    """With ifUnsaved Discard the pause waits up to its timeout, then says what is lost."""
    job = run_job(
        "pause-unsaved",
        {
            **SPEC,
            "checkpoint": {"steps": 10_000},
            "pausePolicy": {"timeoutSeconds": PAUSE_SECONDS, "ifUnsaved": "Discard", "graceSeconds": 10},
        },
    )
    job.wait_step(20)
    fault.strikes("the store is away during a pause that may discard")
    store_switch.off()
    job.scale(0)
    status = job.wait_phase("Paused", within=150)
    assert status["pause"]["saved"] is False
    fault.recovered()
    asked, ended = (datetime.fromisoformat(moment) for moment in (status["pause"]["requestedAt"], status["attempts"][-1]["endedAt"]))
    assert ended - asked >= timedelta(seconds=PAUSE_SECONDS), "the store had all the time it was to be given"
    assert status["pause"]["lostSteps"] >= 20
    assert job.condition("CheckpointReady")["status"] == "False"
    assert job.pods() == []
    fault.ends("Paused, the loss is said", status["pause"]["lostSteps"])
