"""The operator dies before or after any of its API calls: the job comes to the same end, with one workload and no orphan."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass
from typing import Any

import pytest

from finetune_api.contract.failures import EXIT_PEER_LOST, FailureClass
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import FakeCluster, failure
from tests.support.reliability import Fault

SAME_END = "same end state, one workload, no orphan"
Scenario = Callable[[FakeCluster], Awaitable[None]]


async def pause_resume_finish(cluster: FakeCluster) -> None:
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=5)
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def fail_retry_finish(cluster: FakeCluster) -> None:
    cluster.create({"replicas": 2})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.end_pod("demo-r1-1", EXIT_PEER_LOST, failure(FailureClass.PEER_LOST, EXIT_PEER_LOST))
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def gpu_with_preflight_cancelled(cluster: FakeCluster) -> None:
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)


async def own_program_paused_finished(cluster: FakeCluster) -> None:
    """A TrainingMethod's: nobody is asked, and the operator counts the time."""
    method = {"image": "own", "resources": {"device": "cpu"}, "resumable": True}
    cluster.api.add("trainingmethods", {"metadata": {"name": "own"}, "spec": method}, namespace="")
    cluster.create({"methodRef": {"name": "own"}})
    await cluster.until(lambda: cluster.phase == "Training")
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training")
    cluster.end_pod("demo-r2-0", 0)
    await cluster.until(lambda: cluster.phase == "Succeeded")


async def deleted_with_its_objects(cluster: FakeCluster) -> None:
    cluster.create({"output": {"retain": "Delete"}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.api.delete(("finetunejobs", *astuple(cluster.key)))
    await cluster.until(lambda: cluster.is_gone)


async def stopped_resumed(cluster: FakeCluster) -> None:
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"desiredState": "Stopped"})
    await cluster.until(lambda: cluster.phase == "Stopped", train=5)
    cluster.edit({"desiredState": "Running"})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def node_lost(cluster: FakeCluster) -> None:
    """The node comes back when the job has gone on elsewhere."""
    cluster.create({"replicas": 2})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.kill_node()
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    cluster.dead_nodes.clear()
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def applied_from_git_and_by_hand(cluster: FakeCluster) -> None:
    """Argo CD applies the same manifest again and again; a user scales, edits, and applies: refused, then by force."""
    git: dict[str, Any] = {"manager": "argocd-controller", "force": True}
    assert cluster.apply({}, **git).status == 201
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.scale(0)
    await cluster.until(lambda: cluster.phase == "Paused", train=5)
    assert cluster.apply({}, **git).status == 200
    await cluster.settle()
    assert cluster.phase == "Paused", "a manifest without replicas leaves a scale alone"
    cluster.edit({"replicas": 2})
    cluster.edit({"replicas": 0})
    refused = cluster.apply({"replicas": 1})
    assert (refused.status, refused.body["details"]["causes"][0]["field"]) == (409, ".spec.replicas")
    # An operator that saw the two pods of a moment ago has made them, and pauses again.
    await cluster.until(lambda: cluster.phase == "Paused", train=5)
    assert cluster.apply({"replicas": 1}, force=True).status == 200
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    assert cluster.apply({"suspend": True}, **git).status == 200
    await cluster.until(lambda: cluster.phase == "Paused", train=5)
    assert cluster.apply({}, **git).status == 200
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        pause_resume_finish, fail_retry_finish, gpu_with_preflight_cancelled, own_program_paused_finished, deleted_with_its_objects,
        stopped_resumed, node_lost, applied_from_git_and_by_hand,
    )
}  # fmt: skip


@dataclass
class Crash:
    """Ends the operator once, at the n-th write it makes (between two writes it keeps nothing in mind: reads need no case of their own)."""

    at: int
    moment: str
    calls: int = 0

    def __call__(self, call: Call, moment: str) -> None:
        if not call.is_write:
            return
        if moment == "before":
            self.calls += 1
        if self.calls == self.at and moment == self.moment:
            self.at = -1
            raise CrashError


@dataclass
class Watchdog:
    """Checks, at every change, what must never be."""

    cluster: FakeCluster

    def check(self) -> None:
        by_rank: dict[str, int] = {}
        for pod in self.cluster.pods():
            if pod["status"].get("phase") in ("Pending", "Running") and pod["spec"].get("nodeName") not in self.cluster.dead_nodes:
                rank = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
                by_rank[rank] = by_rank.get(rank, 0) + 1
        assert all(count == 1 for count in by_rank.values()), f"two pods of a rank: {by_rank}"


async def play(scenario: Scenario, crash: Crash | None = None) -> tuple[FakeCluster, dict[str, Any], int]:
    """Play a scenario to its end; returns what is left when the finished job was cleared away."""
    cluster = FakeCluster()
    watchdog = Watchdog(cluster)
    counter = crash or Crash(at=-1, moment="before")
    cluster.api.fault = counter
    step = cluster.step

    def watched_step() -> None:
        step()
        watchdog.check()

    cluster.step = watched_step  # type: ignore[method-assign]
    await scenario(cluster)
    await cluster.settle(rounds=200, advance=True)
    return cluster, summary(cluster), counter.calls


def summary(cluster: FakeCluster) -> dict[str, Any]:
    """What counts of the end, without times and uids."""
    objects = sorted(key for key in cluster.api.objects if key[0] != "events")
    if cluster.is_gone:
        cleaned = [m for plural, _, m in cluster.api.history if plural == "jobs" and m["metadata"]["name"] == "demo-cleanup-1"]
        return {"phase": "gone", "objects": objects, "starts": cluster.store.attempts, "cleaned": bool(cleaned)}
    status = cluster.status
    return {
        "phase": status.phase,
        "run": status.run,
        "attempts": [(a.run, a.attempt, a.reason, a.outcome) for a in status.attempts],
        "final": status.artifacts.final_uri,
        "retries": status.retry.used,
        "replicas": status.replicas,
        "objects": objects,
        "starts": cluster.store.attempts,
        "conditions": sorted((c.type, c.status) for c in status.conditions),
        "identity": status.identity_digest,
        "resolved": sorted(status.resolved),
    }


def baseline(scenario: Scenario) -> tuple[dict[str, Any], int]:
    _, end, calls = asyncio.run(play(scenario))
    return end, calls


BASELINES = {name: baseline(scenario) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("name", "index"), [(name, index) for name, (_, calls) in BASELINES.items() for index in range(1, calls + 1)])
async def test_same_end_whatever_call_it_dies_at(name: str, index: int, moment: str, fault: Fault) -> None:
    """Design §7: operator killed between any two of its API calls."""
    fault.strikes(f"operator killed {moment} one of its writes")
    cluster, end, _ = await play(SCENARIOS[name], Crash(index, moment))
    assert cluster.crashes == 1
    assert end == BASELINES[name][0]
    fault.ends(SAME_END)


async def test_a_run_that_trains_before_it_is_noted() -> None:
    """The operator dies when the run's Job is made; pods train before it is back. The phases are those of any run (design §3)."""
    cluster = FakeCluster()
    cluster.create()

    def die(call: Call, _moment: str) -> None:
        if call.path.endswith("/status") and cluster.jobs():
            raise CrashError

    cluster.api.fault = die
    await cluster.reconcile()
    cluster.api.fault = None
    cluster.step()
    await cluster.train(5)
    assert (cluster.crashes, cluster.phase) == (1, "Pending")
    await cluster.until(lambda: cluster.phase == "Training")
    seen = [m["status"].get("phase") for plural, kind, m in cluster.api.history if plural == "finetunejobs" and kind == "MODIFIED"]
    assert list(dict.fromkeys(seen)) == ["Pending", "Starting", "Training"]
