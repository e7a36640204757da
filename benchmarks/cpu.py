"""CPU time of a training process per step: it tells the two sides apart even where other programs keep the cores busy.

Wall-clock time on a shared machine is mostly other people's. Between two lines of its metrics file a worker does nothing but steps, so
the CPU time its threads use in between, divided by the steps, is what a step costs it.
"""

from __future__ import annotations

import contextlib
import threading
from itertools import pairwise
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.005


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process that still live, in seconds; 0 when it is gone."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(task.read_text().split()[0])
    return total / 1e9


def resident_peak(pid: int) -> int:
    """Most bytes of main memory a process had at once; 0 when it is gone."""
    return _from_status(pid, "VmHWM")


def anonymous_bytes(pid: int) -> int:
    """Bytes of main memory a process has now, files it has mapped left out; 0 when it is gone."""
    return _from_status(pid, "RssAnon")


def _from_status(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def descendants(pid: int) -> dict[int, str]:
    """Processes below one, with their command lines."""
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for children in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in map(int, children.read_text().split()):
                    found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                    waiting.append(child)
    return found


class CpuMeter:
    """Follows rank 0 of a supervised run and notes its CPU time whenever it writes its metrics."""

    def __init__(self, supervisor: int, metrics: Path) -> None:
        self.marks: dict[int, float] = {}
        """Lines in the metrics file (steps) -> CPU seconds of rank 0 so far."""
        self.peak_bytes = 0
        """Most main memory rank 0 had at once."""
        self.anonymous_bytes = 0
        """The same without files it has mapped, from the end of the first step on."""
        self._supervisor, self._metrics = supervisor, metrics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        size, rank = 0, 0
        while not self._stop.wait(POLL_SECONDS):
            now = self._metrics.stat().st_size if self._metrics.exists() else 0
            if rank:
                self.anonymous_bytes = max(self.anonymous_bytes, anonymous_bytes(rank))
            if now == size:
                continue
            size = now
            rank = rank or self._rank_0()
            self.marks[self._metrics.read_text().count("\n")] = cpu_seconds(rank)
            self.peak_bytes = max(self.peak_bytes, resident_peak(rank))

    def _rank_0(self) -> int:
        """The process that has the metrics file open."""
        for pid in descendants(self._supervisor):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if descriptor.readlink() == self._metrics:
                        return pid
        raise RuntimeError(f"no process writes {self._metrics}")


def per_step(marks: dict[int, float], save_every: int) -> list[float]:
    """CPU seconds per step between neighbouring marks, without the spans that a save falls into (it follows its step's mark)."""
    steps = sorted(marks)
    return [
        (marks[end] - marks[start]) / (end - start)
        for start, end in pairwise(steps)
        if not any(start <= save < end for save in range(save_every, end, save_every))
    ]
