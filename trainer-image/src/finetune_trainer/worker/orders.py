"""What this rank was told to do, by its supervisor or by SIGTERM, and the bits in which all ranks agree on it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from enum import IntFlag
from typing import Literal, TypeAlias

StopTrigger: TypeAlias = Literal["pause", "stop", "signal"]


class Bit(IntFlag):
    """Bits of the group's message; a bit set by any rank is set for all."""

    NONE = 0
    PAUSE = 1
    STOP = 2
    SIGNAL = 4
    SAVE = 8
    """Save on command."""
    INTERVAL = 16
    """Save because of the minutes; only rank 0's clock sets it."""
    NO_SPACE = 32
    """A rank has no local space for another checkpoint."""
    FAILED = 64
    """A rank could not write its part of a checkpoint, or found weights that are not finite."""
    WRITTEN = 128
    """Rank 0 has ended writing, while the training went on, the checkpoint that is under way."""


STOP_BITS: dict[StopTrigger, Bit] = {"pause": Bit.PAUSE, "stop": Bit.STOP, "signal": Bit.SIGNAL}


def stop_trigger(bits: Bit) -> StopTrigger | None:
    """Why the group stops; a pause or stop explains a SIGTERM that comes with it."""
    return next((trigger for trigger, bit in STOP_BITS.items() if bit in bits), None)


class Orders:
    """Flags set by other threads and read at the agreed moments. Until :meth:`begin`, a stop leaves at once: nothing is lost yet."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._lock = threading.Lock()
        self._stop = Bit.NONE
        self._save = False
        self._begun = False

    def stop(self, trigger: StopTrigger) -> None:
        """Stop at the next agreed moment, or leave at once before training has begun."""
        with self._lock:
            self._stop |= STOP_BITS[trigger]
            begun = self._begun
        if not begun:
            self._leave()

    def save(self) -> None:
        """Save at the next agreed step."""
        with self._lock:
            self._save = True

    def begin(self) -> None:
        """From now on a stop waits for the group."""
        with self._lock:
            self._begun = True

    @property
    def stop_bits(self) -> Bit:
        """The wish of this rank to stop; it stays."""
        with self._lock:
            return self._stop

    def take(self) -> Bit:
        """Return the wishes of this rank at the end of a step; a save is asked for once."""
        with self._lock:
            bits = self._stop | (Bit.SAVE if self._save else Bit.NONE)
            self._save = False
            return bits


def watch_sigterm(on_term: Callable[[], None]) -> None:
    """Call ``on_term`` from a thread of its own on SIGTERM, even while the main thread is inside a library that never returns to Python.

    Must be called from the main thread.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)  # noqa: FBT003  # the library's signature
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget_signals)

    def wait() -> None:
        while received := reading.recv(64):
            if signal.SIGTERM in received:
                on_term()

    threading.Thread(target=wait, name="sigterm", daemon=True).start()
    # The thread keeps the reading end; the writing end must live as long as the process.
    _kept.append(writing)


def _forget_signals() -> None:
    """Give a forked data loader process the default behaviour: its signals are its own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_kept: list[socket.socket] = []
