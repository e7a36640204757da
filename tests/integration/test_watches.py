"""What happens to the operator's watches: it lists again or goes on where it stood, acts on what it missed, and does nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import make_job
from tests.support.operator_process import Operator
from tests.support.platform import Kubectl, eventually
from tests.support.reliability import Fault
from tests.support.watch_proxy import End, Manner, WatchProxy, running_watch_proxy

SILENCE_SECONDS, RESYNC_SECONDS = "15", "10"
OUTCOME = "what was missed is acted on, once"


class Life:
    """Jobs that no node can take, in a namespace that an operator behind a proxy looks after."""

    def __init__(self, kubectl: Kubectl, proxy: WatchProxy) -> None:
        self.kubectl, self.proxy = kubectl, proxy

    def create(self, name: str) -> None:
        """A new job."""
        self.kubectl.apply(make_job(name, {"resources": {"nodeSelector": {"finetune.dev/test": "nowhere"}}}))

    def suspend(self, name: str, *, value: bool = True) -> None:
        """Pause or resume, as a commit does."""
        self.kubectl("patch", "finetunejob", name, "--type=merge", "-p", f'{{"spec":{{"suspend":{str(value).lower()}}}}}')

    def job(self, name: str) -> dict[str, Any]:
        """Status of a job."""
        return dict((self.kubectl.get("finetunejob", name) or {}).get("status") or {})

    def runs(self, name: str) -> list[str]:
        """Child Jobs of a job."""
        return [item["metadata"]["name"] for item in self.kubectl.items("jobs", f"finetune.dev/job={name}")]

    def await_run(self, name: str, number: int) -> None:
        """Exactly one run is there, and it is this one."""
        eventually(lambda: self.runs(name) == [f"{name}-r{number}"] or None, within=120, what=f"run {number} of {name}")

    def await_paused(self, name: str, number: int) -> None:
        """Paused, no pod is left, and there were so many runs."""
        eventually(lambda: self.job(name).get("phase") == "Paused" or None, within=120, what=f"{name} is Paused")
        eventually(lambda: self.runs(name) == [] or None, within=60, what=f"no run of {name}")
        assert self.job(name)["run"] == number


@pytest.fixture
def life(unattended: Kubectl, tmp_path: Path) -> Iterator[Life]:
    """An operator whose requests all go through the proxy."""
    with ExitStack() as stack:
        proxy = stack.enter_context(running_watch_proxy(stack.enter_context(unattended.proxy())))
        more = {"WATCH_SILENCE_SECONDS": SILENCE_SECONDS, "RESYNC_SECONDS": RESYNC_SECONDS}
        Operator(unattended, "one", tmp_path / "log", stack, kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"), **more)
        yield Life(unattended, proxy)


def test_watches_that_end_or_go_silent(life: Life, fault: Fault) -> None:
    """410 Gone, a connection cut in the middle of an event, one that says nothing any more: OP-12, Q-01, Q-10."""
    ends: tuple[End, ...] = ("410 Gone", "cut in the middle", "silence")
    fault.strikes("operator: a watch ends with 410, is cut in the middle of an event, or goes silent", len(ends))
    life.create("older")
    life.await_run("older", 1)
    for number, how in enumerate(ends, start=1):
        kept_back = life.proxy.kept_back
        life.proxy.keep_back()
        name = f"meanwhile-{number}"
        life.create(name)
        life.suspend("older")
        eventually(lambda before=kept_back: life.proxy.kept_back >= before + 2 or None, within=60, what="events kept back")  # type: ignore[misc]
        life.proxy.end(how)
        life.await_run(name, 1)
        life.await_paused("older", number)
        life.suspend("older", value=False)
        life.await_run("older", number + 1)
    assert {name: life.job(name)["run"] for name in ("meanwhile-1", "meanwhile-2", "meanwhile-3")} == {
        "meanwhile-1": 1,
        "meanwhile-2": 1,
        "meanwhile-3": 1,
    }
    fault.ends(OUTCOME)


@pytest.mark.parametrize("manner", ["doubled", "with gaps"])
def test_events_doubled_or_lost(life: Life, manner: Manner, fault: Fault) -> None:
    """Each event twice; or every other one never, also of Jobs and pods: a pause, a resume and a pause, each once."""
    fault.strikes(f"operator: events of the API server {manner}")
    life.create("job")
    life.await_run("job", 1)
    life.proxy.manner = manner
    life.suspend("job")
    life.await_paused("job", 1)
    life.suspend("job", value=False)
    life.await_run("job", 2)
    life.suspend("job")
    life.await_paused("job", 2)
    assert manner == "doubled" or life.proxy.kept_back
    fault.ends(OUTCOME)
