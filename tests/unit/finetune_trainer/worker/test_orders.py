"""What a rank was told, from whichever thread."""

from __future__ import annotations

import subprocess
import sys

from finetune_trainer.worker.orders import Bit, Orders, stop_trigger

HANGING = """
import ctypes, os
from finetune_trainer.worker.orders import watch_sigterm
watch_sigterm(lambda: os._exit(75))
print("ready", flush=True)
while True:
    ctypes.CDLL(None).sleep(60)
"""


def test_before_training_a_stop_leaves_at_once() -> None:
    """Nothing can be lost yet; afterwards the order waits for the group."""
    left: list[str] = []
    orders = Orders(lambda: left.append("left"))
    orders.stop("pause")
    assert left == ["left"]
    orders.begin()
    orders.stop("signal")
    assert left == ["left"]
    assert orders.stop_bits == Bit.PAUSE | Bit.SIGNAL


def test_a_save_is_taken_once_a_stop_stays() -> None:
    """A stop stands until the group has agreed on it."""
    orders = Orders(lambda: None)
    orders.begin()
    orders.save()
    orders.stop("stop")
    assert orders.take() == Bit.SAVE | Bit.STOP
    assert orders.take() == Bit.STOP


def test_reasons() -> None:
    """A pause or stop explains a SIGTERM that comes with it."""
    assert stop_trigger(Bit.NONE) is None
    assert stop_trigger(Bit.SAVE | Bit.FAILED) is None
    assert stop_trigger(Bit.SIGNAL) == "signal"
    assert stop_trigger(Bit.SIGNAL | Bit.STOP) == "stop"
    assert stop_trigger(Bit.SIGNAL | Bit.STOP | Bit.PAUSE) == "pause"


def test_sigterm_is_heard_inside_a_library_call() -> None:
    """The main thread is in C and does not come back: the order is obeyed all the same."""
    process = subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "ready\n"
        process.terminate()
        assert process.wait(60) == 75
