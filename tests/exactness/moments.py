"""A worker whose rank 0 says that it has come to the moment ``FINETUNE_TEST_MOMENT``, and waits there until it was told to stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from finetune_trainer.protocol import Warned
from finetune_trainer.worker import checkpoint, run
from finetune_trainer.worker.__main__ import main as work
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.heartbeat import Heartbeat
from finetune_trainer.worker.link import Link
from finetune_trainer.worker.orders import Orders

CONDITION: Final = "Moment"
WAIT_SECONDS: Final = 60.0
STEPS: Final = 8
"""Of the runs that stop at a moment."""
ACCUMULATING: Final = 5
"""The step that is stopped in the middle."""


class Place(NamedTuple):
    """A function that the worker waits after."""

    owner: Any
    name: str
    link: Callable[..., Link | None]
    """Gives the link for the arguments of the call that is meant, None for others."""


PLACES: Final = {
    "load": Place(run, "load_material", lambda session, *_: session.link),
    "accumulation": Place(
        Conductor,
        "on_substep_end",
        lambda self, _, state, *__, **___: self._session.link if state.global_step == ACCUMULATING - 1 else None,
    ),
    "evaluation": Place(Heartbeat, "beat", lambda self, *sign: self._link if sign == ("Evaluating", 1) else None),
    "save": Place(Heartbeat, "beat", lambda self, *sign: self._link if sign == ("Saving", 0) else None),
    "upload": Place(checkpoint, "hand_over", lambda session: session.link if session.saving is not None else None),
    "last-but-one": Place(
        Conductor, "on_step_end", lambda self, _, state, *__, **___: self._session.link if state.global_step == STEPS - 2 else None
    ),
    "last-step": Place(
        Conductor, "on_substep_end", lambda self, _, state, *__, **___: self._session.link if state.global_step == STEPS - 1 else None
    ),
}


def main() -> int:
    """Run a worker that waits."""
    if os.environ["RANK"] == "0":
        wait_at(os.environ["FINETUNE_TEST_MOMENT"])
    return work()


def wait_at(moment: str) -> None:
    """Put the wait where the worker comes by at the moment."""
    place, told = PLACES[moment], threading.Event()
    stop, stock = Orders.stop, getattr(place.owner, place.name)

    def tell(self: Orders, trigger: Any) -> None:
        stop(self, trigger)
        told.set()

    def call_and_wait(*args: Any, **named: Any) -> Any:
        link = place.link(*args, **named)
        result = stock(*args, **named)
        if link is not None and not told.is_set():
            link.send(Warned(condition=CONDITION, message=moment))
            assert told.wait(WAIT_SECONDS), f"no order came at {moment}"
        return result

    Orders.stop = tell  # type: ignore[method-assign]
    setattr(place.owner, place.name, call_and_wait)
