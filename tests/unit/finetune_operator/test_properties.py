"""Whatever users, nodes and the operator's own death do: what must never be never is, and everything comes to rest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phase_
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_api.contract.failures import EXIT_PEER_LOST, EXIT_STOPPED, EXIT_UNKNOWN, EXIT_USER_ERROR, FailureClass
from finetune_api.lifecycle import PHASES, may_follow
from finetune_api.models.status import FINAL_PHASES, RESTING_PHASES, Phase
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import NAMESPACE, FakeCluster, Use, failure
from tests.support.reliability import Fault

AT_WORK = (Phase.QUEUED, Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING)
EXITS = {
    "peer lost": (EXIT_PEER_LOST, FailureClass.PEER_LOST),
    "user error": (EXIT_USER_ERROR, FailureClass.DATA),
    "unknown": (EXIT_UNKNOWN, None),
    "killed": (137, None),
    "stopped": (EXIT_STOPPED, None),
}


APPLIERS = [("kubectl", False), ("kubectl", True), ("argocd-controller", True), ("kustomize-controller", True)]
"""Who applies manifests, and whether by force."""
ENDS = st.sampled_from(["cancel", "delete", "keep", "keep", "keep", "keep"])
"""What may end a life: most go on."""


def acts(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule about a job that is there."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        there = precondition(lambda self: not self.cluster.is_gone)
        made: Callable[..., None] = there(rule(**strategies)(function))  # type: ignore[no-untyped-call]
        return made

    return decorate


class JobLife(RuleBasedStateMachine):
    """One job; rules are what can happen to it."""

    lived = 0

    def __init__(self) -> None:
        super().__init__()
        JobLife.lived += 1
        self.cluster = FakeCluster()
        self.seen = 0
        self.phase = Phase.PENDING
        self.grown: dict[str, float] = {}
        self.requests = 0
        self.handled: set[str] = set()
        self.job_key = ("finetunejobs", NAMESPACE, self.cluster.key.name)
        self.is_robbed = False
        self.writes_to_crash = -1
        self.cluster.api.fault = self.fault
        step = self.cluster.step

        def watched_step() -> None:
            step()
            self.check_ranks()

        self.cluster.step = watched_step  # type: ignore[method-assign]

    def fault(self, call: Call, moment: str) -> None:
        if call.is_write and moment == "after" and self.writes_to_crash >= 0:
            self.writes_to_crash -= 1
            if self.writes_to_crash < 0:
                raise CrashError

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def look(self, times: int = 1) -> None:
        async def work() -> None:
            for _ in range(times):
                await self.cluster.reconcile()
                self.cluster.step()

        self.do(work())

    # --- what happens ---

    @initialize(
        replicas=st.sampled_from([1, 2]),
        device=st.sampled_from(["cpu", "gpu"]),
        suspend=st.sampled_from([False, False, False, True]),
        retain=st.sampled_from(["Keep", "Keep", "Delete"]),
        steps=st.sampled_from([1, 3, 5, 0]),
    )
    def create(self, replicas: int, device: str, suspend: bool, retain: str, steps: int) -> None:
        """By POST with one device, by server-side apply with the other."""
        shape = {"replicas": replicas, "resources": {"device": device}, "output": {"retain": retain}}
        spec = {**shape, "suspend": suspend, "training": {"seed": 1}}
        if device == "cpu":
            self.cluster.create(spec)
        else:
            assert self.cluster.apply(spec, manager="argocd-controller", force=True).status == 201
        if steps:
            self.goes_its_way(steps, "starting")

    @rule(times=st.integers(1, 4))
    def reconcile(self, times: int) -> None:
        self.look(times)

    @rule(seconds=st.sampled_from([1, 12, 45, 200, 700]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.clock.advance(seconds)
        self.look()

    @rule(seconds=st.sampled_from([-3600, -90, -5, 86400]))
    def clock_jumps(self, seconds: int) -> None:
        """A wall clock set by hand or by NTP."""
        self.cluster.clock.advance(seconds)

    @acts()
    def all_is_quiet(self) -> None:
        """No phase flaps once things are quiet, and a plan that was carried out leaves nothing to do."""
        if self.writes_to_crash >= 0:
            return

        async def work() -> None:
            for _ in range(60):
                before = self.cluster.fingerprint()
                await self.cluster.reconcile()
                self.cluster.step()
                if self.cluster.fingerprint() == before and self.cluster.wake != 0:
                    break
            if self.cluster.is_gone:
                return
            phase, writes = self.cluster.phase, self.writes()
            for _ in range(2):
                await self.cluster.reconcile()
            assert self.writes() == writes, [call for call in self.cluster.api.calls if call.is_write][writes:]
            assert self.cluster.phase == phase

        self.do(work())

    def writes(self) -> int:
        return len([call for call in self.cluster.api.calls if call.is_write])

    @acts(seconds=st.sampled_from([None, 60, 90, 1000]))
    def set_limit(self, seconds: int | None) -> None:
        self.cluster.edit({"limits": {"maxActiveSeconds": seconds}})

    @acts(steps=st.integers(1, 30))
    def train(self, steps: int) -> None:
        self.do(self.cluster.train(steps))
        self.look()

    @acts(steps=st.integers(1, 15), use=st.sampled_from(get_args(Use)))
    def goes_its_way(self, steps: int, use: Use) -> None:
        """Some minutes without anybody's doing: most lives are of this."""
        self.cluster.use = use

        async def work() -> None:
            for _ in range(8):
                await self.cluster.reconcile()
                self.cluster.step()
                await self.cluster.train(steps)
                self.cluster.clock.advance(6)

        self.do(work())

    @acts(suspend=st.booleans())
    def set_suspend(self, suspend: bool) -> None:
        self.cluster.edit({"suspend": suspend})

    @acts(replicas=st.sampled_from([0, 1, 2]))
    def scale(self, replicas: int) -> None:
        self.cluster.scale(replicas)

    @acts(
        by=st.sampled_from(APPLIERS),
        replicas=st.sampled_from([None, None, 0, 1, 2]),
        suspend=st.sampled_from([None, False, True]),
    )
    def apply_again(self, by: tuple[str, bool], replicas: int | None, suspend: bool | None) -> None:
        """What a manifest says comes true or is refused; what it says nothing of stays if it is another's."""
        manager, force = by
        before = self.cluster.manifest["spec"]
        others = {path for owner, paths in self.cluster.api.owners(self.job_key).items() if owner.name != manager for path in paths}
        said: dict[str, Any] = {name: value for name, value in (("replicas", replicas), ("suspend", suspend)) if value is not None}
        same = {name: before[name] for name in ("resources", "desiredState", "training", "output") if name in before}
        answer = self.cluster.apply({**same, **said}, manager=manager, force=force)
        now = self.cluster.manifest["spec"]
        if answer.status == 409:
            assert not force
            assert now == before
            fields = {cause["field"].removeprefix(".spec.") for cause in answer.body["details"]["causes"]}
            assert fields <= {name for name in said if said[name] != before[name]}, "only what would change"
            return
        assert answer.status == 200, answer.body
        assert {name: now[name] for name in said} == said
        for name in {"replicas", "suspend"} - set(said):
            assert now[name] == before[name] or ("f:spec", f"f:{name}") not in others, f"{name} is another's"

    @acts(state=st.sampled_from(["Running", "Running", "Stopped"]))
    def set_desired_state(self, state: str) -> None:
        if self.cluster.manifest["spec"]["desiredState"] != "Cancelled":
            self.cluster.edit({"desiredState": state})

    @acts(how=ENDS)
    def end_it(self, how: str) -> None:
        if how == "cancel":
            self.cluster.edit({"desiredState": "Cancelled"})
        elif how == "delete":
            self.cluster.api.delete(self.job_key)
            self.cluster.step()

    @acts(retain=st.sampled_from(["Keep", "Delete"]))
    def set_retain(self, retain: str) -> None:
        self.cluster.edit({"output": {"retain": retain}})

    @acts()
    def edit_identity(self) -> None:
        self.cluster.edit({"training": {"seed": 3 - self.cluster.manifest["spec"].get("training", {}).get("seed", 1)}})

    @acts(discard=st.booleans())
    def set_pause_policy(self, discard: bool) -> None:
        self.cluster.edit({"pausePolicy": {"ifUnsaved": "Discard" if discard else "Wait"}})

    @acts(verb=st.sampled_from(["retry", "checkpoint", "resume", "nonsense"]))
    def request(self, verb: str) -> None:
        self.requests += 1
        self.cluster.annotate(**{"finetune.dev/request": f"{verb}/{self.requests}"})

    @precondition(lambda self: self.cluster.pods())
    @rule(exit_name=st.sampled_from(sorted(EXITS)), index=st.integers(0, 1), times=st.integers(0, 3))
    def pod_ends(self, exit_name: str, index: int, times: int) -> None:
        code, failure_class = EXITS[exit_name]
        running = [pod for pod in self.cluster.pods() if pod["status"].get("phase") == "Running"]
        if index < len(running):
            answer = failure(failure_class, code) if failure_class is not None else None
            self.cluster.end_pod(running[index]["metadata"]["name"], code, answer)
            self.cluster.step()
            self.look(times)

    @precondition(lambda self: self.cluster.jobs())
    @rule()
    def somebody_deletes_the_job(self) -> None:
        self.cluster.api.delete(("jobs", NAMESPACE, self.cluster.jobs()[0]["metadata"]["name"]))
        self.is_robbed = True
        self.cluster.step()

    @rule(dead=st.booleans())
    def node_dies_or_returns(self, dead: bool) -> None:
        if dead:
            self.cluster.kill_node()
        else:
            self.cluster.dead_nodes.clear()
        self.cluster.step()

    @rule(cordoned=st.booleans())
    def cordon(self, cordoned: bool) -> None:
        self.cluster.cordoned = cordoned

    @rule(arrive=st.booleans())
    def posts_arrive(self, arrive: bool) -> None:
        self.cluster.posts_arrive = arrive

    @rule(writes=st.integers(0, 5))
    def operator_will_die(self, writes: int) -> None:
        self.writes_to_crash = writes

    # --- what must never be ---

    def check_ranks(self) -> None:
        ranks = [
            pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
            for pod in self.cluster.pods()
            if pod["status"].get("phase") in ("Pending", "Running") and pod["spec"].get("nodeName") not in self.cluster.lost_nodes
        ]
        assert len(ranks) == len(set(ranks)), f"two reachable pods of a rank: {ranks}"

    @invariant()
    def one_workload(self) -> None:
        alive = [job for job in self.cluster.jobs() if "deletionTimestamp" not in job["metadata"]]
        assert len(alive) <= 1

    @invariant()
    def phases_follow_the_table(self) -> None:
        for plural, kind, manifest in self.cluster.api.history[self.seen :]:
            if plural != "finetunejobs" or kind == "DELETED":
                continue
            status = manifest.get("status") or {}
            phase = Phase(status.get("phase", "Pending"))
            assert may_follow(self.phase, phase), f"{self.phase} → {phase}"
            gives_up = self.phase in AT_WORK and phase in (Phase.PAUSED, Phase.STOPPED, Phase.CANCELLED)
            assert self.is_robbed or not gives_up, "no pause without asking the trainer, unless its Job was taken away"
            if self.phase in FINAL_PHASES:
                assert phase == self.phase
            self.check_failed(phase, status.get("lastHandledRequest"), manifest["spec"]["desiredState"])
            if phase in RESTING_PHASES:
                assert status.get("replicas", 0) == 0
            self.phase = phase
        self.seen = len(self.cluster.api.history)

    def check_failed(self, phase: Phase, handled: str | None, desired: str) -> None:
        """Failed ends by a request retry that was not acted on before, or by a cancellation."""
        if self.phase is Phase.FAILED and phase is not Phase.FAILED:
            retried = handled is not None and handled not in self.handled and handled.startswith("retry/")
            assert retried or (desired == "Cancelled" and phase in (Phase.STOPPING, Phase.CANCELLED)), (phase, handled, desired)
        if handled is not None:
            self.handled.add(handled)

    @invariant()
    def a_resting_job_has_no_pods(self) -> None:
        manifest = self.cluster.api.get("finetunejobs", self.cluster.key.name)
        if manifest is None or Phase(self.cluster.phase) not in RESTING_PHASES:
            return
        alive = [
            pod["metadata"]["name"]
            for pod in self.cluster.pods()
            if pod["status"].get("phase") in ("Pending", "Running") and pod["spec"].get("nodeName") not in self.cluster.lost_nodes
        ]
        assert alive == []

    @invariant()
    def phases_without_pods_have_none(self) -> None:
        status = (self.cluster.api.get("finetunejobs", self.cluster.key.name) or {}).get("status") or {}
        if not PHASES[Phase(status.get("phase", "Pending"))].holds_pods:
            assert status.get("replicas", 0) == 0

    @invariant()
    def attempts_and_usage_only_grow(self) -> None:
        manifest = self.cluster.api.get("finetunejobs", self.cluster.key.name)
        if manifest is None:
            return
        status = self.cluster.status
        numbers = {name: value for name, value in status.usage.model_dump(exclude={"lost_steps"}).items() if isinstance(value, float)}
        now = {**numbers, "run": status.run, "attempts": status.attempt_count, "generation": status.observed_generation}
        assert all(now[name] >= before for name, before in self.grown.items()), (self.grown, now)
        self.grown = now

    @invariant()
    def spec_is_the_users(self) -> None:
        writes = [call for call in self.cluster.api.calls if call.is_write and "/finetunejobs/" in call.path]
        assert all("spec" not in (call.body or {}) for call in writes)
        owners = self.cluster.api.owners(self.job_key)
        own = {path[0] for owner, paths in owners.items() if owner.name.startswith("finetune-") for path in paths}
        assert own <= {"f:status", "f:metadata"}, "so no apply of a user conflicts with the operator"

    def teardown(self) -> None:
        """Everything mended and wanted running: it ends, is cleared away, and then nothing is written any more."""
        self.writes_to_crash = -1
        self.cluster.cordoned, self.cluster.posts_arrive = False, True
        self.cluster.dead_nodes.clear()
        self.cluster.lost_nodes.clear()
        endings = (self.finish, self.finish, self.cancel, self.delete)
        if self.cluster.is_gone or "deletionTimestamp" in self.cluster.manifest["metadata"]:
            ending = self.end_deletion
        elif self.cluster.manifest["spec"]["desiredState"] == "Cancelled":
            ending = self.cancel
        else:
            ending = endings[self.requests % len(endings)]
        self.do(ending())

    @property
    def kept(self) -> set[str]:
        """What stays beside a job that is over: the frame its objects in the store are deleted by, where they go with it."""
        return {"finetunejobs", "events"} | ({"configmaps"} if self.cluster.manifest["metadata"].get("finalizers") else set())

    async def cancel(self) -> None:
        """Cancelled from wherever it is: no pods, artefacts kept for their time, then nothing is left and nothing is written any more."""
        self.cluster.edit({"desiredState": "Cancelled", "pausePolicy": {"ifUnsaved": "Discard"}})
        for _ in range(200):
            await self.cluster.reconcile()
            self.cluster.step()
            await self.cluster.train(1)
            self.cluster.clock.advance(20)
            self.phases_follow_the_table()
            if self.cluster.phase in FINAL_PHASES:
                break
        assert self.cluster.phase in FINAL_PHASES, (self.cluster.phase, self.cluster.status.reason)
        phase = self.cluster.phase
        self.cluster.clock.advance(31 * 86400)
        await self.cluster.settle(rounds=100, advance=True)
        assert self.cluster.phase == phase
        left = [key for key in self.cluster.api.objects if key[0] not in self.kept]
        assert left == [], (left, self.cluster.condition("Reconciling"), self.cluster.wake, self.cluster.story()[-6:])

    async def delete(self) -> None:
        """Deletion ends, and takes everything along."""
        self.cluster.api.delete(self.job_key)
        await self.end_deletion()

    async def end_deletion(self) -> None:
        await self.cluster.settle(rounds=100, advance=True)
        assert {key[0] for key in self.cluster.api.objects} <= {"events"}

    async def finish(self) -> None:
        spec: dict[str, Any] = {
            "suspend": False,
            "replicas": 1,
            "desiredState": "Running",
            "training": None,
            "limits": None,
            "pausePolicy": {"ifUnsaved": "Discard"},
        }
        self.cluster.edit(spec)
        for round_number in range(400):
            await self.cluster.reconcile()
            self.cluster.step()
            await self.cluster.train(5)
            if self.cluster.phase == Phase.FAILED:
                self.requests += 1
                self.cluster.annotate(**{"finetune.dev/request": f"retry/{self.requests}"})
            if self.cluster.status.hold is not None:
                self.requests += 1
                self.cluster.annotate(**{"finetune.dev/request": f"resume/{self.requests}"})
            if self.cluster.status.reason == "EditRefused":
                self.edit_identity()
            self.cluster.clock.advance(5 + round_number)
            self.phases_follow_the_table()
            if self.cluster.phase == Phase.SUCCEEDED:
                break
        assert self.cluster.phase == Phase.SUCCEEDED, (self.cluster.phase, self.cluster.status.reason, self.cluster.story())
        await self.cluster.settle(rounds=100, advance=True)
        left = {key[0] for key in self.cluster.api.objects}
        assert left <= self.kept
        calls = len([call for call in self.cluster.api.calls if call.is_write])
        await self.cluster.reconcile()
        assert len([call for call in self.cluster.api.calls if call.is_write]) == calls


class TestJobLife(JobLife.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(
        max_examples=2000 if os.environ.get("FINETUNE_SOAK") == "1" else 60,
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        phases=[Phase_.explicit, Phase_.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )

    @pytest.fixture(autouse=True)
    def _tell(self, fault: Fault) -> Iterator[None]:
        before = JobLife.lived
        yield
        fault.strikes(
            "random lives of a job: users' acts, pods that fail, nodes that die, operators that crash, time", JobLife.lived - before
        )
        fault.ends("invariants held, came to rest")
