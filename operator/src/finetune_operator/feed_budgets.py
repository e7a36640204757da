"""What the watch last said of Budgets and of the jobs they pay for: which events are worth a look, which jobs wait for an answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from finetune_api.constants import BUDGET_NAME
from finetune_api.models.status import Phase
from finetune_operator.cluster.budgets import BudgetKey
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import EventType, trigger_of
from finetune_operator.plan.funds import Used
from finetune_operator.plan.observed import Manifest

Mark = Callable[[JobKey | BudgetKey, float], None]
ASK_DELAY_SECONDS = 0.2
"""Jobs ask in bursts; one look answers them all."""
USE_DELAY_SECONDS = 5.0
"""What jobs have used is written down soon, and for all of them at once."""


class Balance(NamedTuple):
    """What metrics show of a Budget."""

    currency: str
    balance: str
    reserved: str
    settled: str
    quota: int | None
    """Checkpoints that jobs may write."""
    checkpoints: int
    """Those they have written."""


class _Known(NamedTuple):
    """A Budget as last seen."""

    uid: str
    trigger: int
    """Hash of what makes it worth a reconcile."""
    grants: dict[str, Any]
    """uid of a job -> what of its share it waits for."""
    shown: Balance


class BudgetFeed:
    """The Budgets this replica knows of. ``mark`` is told of each that should be looked at, and of the jobs that wait for it."""

    def __init__(self, mark: Mark, forget: Callable[[BudgetKey], None], *, waiting: Callable[[str], Iterable[tuple[JobKey, str]]]) -> None:
        """``waiting``: jobs of a namespace that wait for its Budget, with their uids."""
        self._mark = mark
        self._forget = forget
        self._waiting = waiting
        self._known: dict[BudgetKey, _Known] = {}
        self._jobs: dict[JobKey, tuple[str, tuple[Any, ...], Used]] = {}
        """Job -> uid, what it asks for and where it is, what it has used."""
        self._farewells: dict[BudgetKey, dict[str, Used]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[str, Balance]]:
        return iter([(key.namespace, known.shown) for key, known in self._known.items()])

    def keys(self) -> Collection[BudgetKey]:
        """All of them."""
        return list(self._known)

    def farewells(self, key: BudgetKey) -> dict[str, Used]:
        """Uid of deleted jobs -> what they had used when they were last seen; kept until they have no share any more."""
        return self._farewells.get(key, {})

    def budget_event(self, kind: EventType, manifest: Manifest) -> None:
        """A Budget was listed, added, changed or deleted."""
        metadata = manifest["metadata"]
        if metadata["name"] != BUDGET_NAME:
            return
        key = BudgetKey(metadata["namespace"])
        before = self._known.get(key)
        if kind == "DELETED":
            self.drop(key)
            self._wake_jobs(key, None, None)
            return
        now = self._known[key] = _read(manifest)
        farewells = self._farewells.pop(key, {})
        self._farewells[key] = {uid: used for uid, used in farewells.items() if uid in now.grants}
        is_new = before is None or (before.uid, before.trigger) != (now.uid, now.trigger)
        if is_new:
            self._mark(key, 0.0)
        self._wake_jobs(key, None if is_new else before, now)

    def job_event(self, kind: EventType, manifest: Manifest) -> None:
        """A FineTuneJob was listed, added, changed or deleted."""
        metadata, status = manifest["metadata"], manifest.get("status") or {}
        key, budget = JobKey(metadata["namespace"], metadata["name"]), BudgetKey(metadata["namespace"])
        rate_seconds = (status.get("usage") or {}).get("rateSeconds")
        used = Used(rate_seconds or "0", (status.get("checkpoints") or {}).get("saved", 0))
        if kind == "DELETED":
            self._jobs.pop(key, None)
            if budget in self._known:
                self._farewells.setdefault(budget, {})[metadata["uid"]] = used
                self._mark(budget, ASK_DELAY_SECONDS)
            return
        estimate = status.get("estimate") or {}
        asked = ((estimate.get("cost") or {}).get("high"), estimate.get("quota"))
        stands = (status.get("phase"), status.get("run"), status.get("observedGeneration"), asked, status.get("approvedCost"))
        now = (metadata["uid"], stands, used)
        before = self._jobs.get(key)
        if asked == (None, None) and rate_seconds is None:
            return
        self._jobs[key] = now
        known = self._known.get(budget)
        if known is None or before == now:
            return
        self._mark(budget, ASK_DELAY_SECONDS if before is None or before[:2] != now[:2] else USE_DELAY_SECONDS)
        if metadata["uid"] in known.grants and status.get("phase") == Phase.AWAITING_BALANCE:
            self._mark(key, 0.0)  # the answer was heard before the question

    def drop(self, key: BudgetKey) -> None:
        """A Budget is gone."""
        self._known.pop(key, None)
        self._farewells.pop(key, None)
        self._forget(key)

    def _wake_jobs(self, key: BudgetKey, before: _Known | None, now: _Known | None) -> None:
        """Jobs that wait, and for which something has changed; ``before`` None: for all of them."""
        for job, uid in self._waiting(key.namespace):
            if before is None or now is None or before.grants.get(uid) != now.grants.get(uid):
                self._mark(job, 0.0)


def _read(manifest: Manifest) -> _Known:
    metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
    grants = {
        uid: (share["run"], share["generation"], share.get("limit"), share.get("checkpointLimit"))
        for uid, share in (status.get("shares") or {}).items()
    }
    balance, reserved, settled = (status.get(name, "0") for name in ("balance", "reserved", "settled"))
    shown = Balance(spec["currency"], balance, reserved, settled, spec.get("checkpointQuota"), status.get("checkpoints", 0))
    return _Known(metadata["uid"], trigger_of(metadata), grants, shown)
