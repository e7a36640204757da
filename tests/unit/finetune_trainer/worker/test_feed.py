"""A tracker that is down, slow or hostile costs training nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from finetune_trainer.worker.trackers.feed import Feed


class Fake:
    """A tracker that fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.failures = failures
        self.connections = 0
        self.closed = False

    def connect(self) -> Fake:
        """Open, counting."""
        self.connections += 1
        return self

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take a point, or fail."""
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("server is away\nwith details")
        self.points.append((step, dict(values)))

    def close(self) -> None:
        """Note it."""
        self.closed = True


def test_points_arrive_in_order() -> None:
    """And the run is finished at the end."""
    fake = Fake()
    feed = Feed("fake", fake.connect, lambda _message: None)
    for step in range(50):
        feed.put(step, {"loss": float(step)})
    feed.finish()
    feed.join(10)
    assert fake.points == [(step, {"loss": float(step)}) for step in range(50)]
    assert fake.closed
    assert fake.connections == 1


def test_an_outage_is_said_and_survived() -> None:
    """Nothing is lost, the warning is raised and cleared."""
    fake, warnings, healed = Fake(failures=3), [], threading.Event()

    def warn(message: str) -> None:
        warnings.append(message)
        if not message:
            healed.set()

    feed = Feed("fake", fake.connect, warn, retry_seconds=0.01)
    feed.put(1, {"loss": 1.0})
    feed.put(2, {"loss": 2.0})
    assert healed.wait(60)
    feed.finish()
    feed.join(10)
    assert fake.points == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]
    assert fake.connections == 4
    assert warnings[0] == "fake cannot be reached, training goes on without it: server is away"


def test_a_missing_tracker_ends_with_the_run() -> None:
    """It is not waited for."""
    warnings: list[str] = []

    def connect() -> Fake:
        raise ImportError("no such library")

    feed = Feed("fake", connect, warnings.append, retry_seconds=3600)
    feed.put(1, {"loss": 1.0})
    feed.finish()
    feed.join(30)
    assert warnings[0].endswith("no such library")


def test_a_tracker_that_hangs_is_left_behind() -> None:
    """Training ends; what was not taken is said."""
    hanging = threading.Event()
    warnings: list[str] = []

    class Hanging(Fake):
        def log(self, step: int, values: Mapping[str, float]) -> None:
            hanging.wait(60)

    feed = Feed("fake", Hanging().connect, warnings.append)
    feed.put(1, {"loss": 1.0})
    feed.finish()
    feed.join(0.05)
    hanging.set()
    assert warnings == ["fake did not take the last 1 points in time"]
