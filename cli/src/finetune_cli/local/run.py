"""One run of a job on this machine, from start to its last word."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from rich.console import Console

from finetune_api.contract import metrics as names
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.status import Phase
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.local.config import build_run_config, check_same_training
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.local.figures import NOTHING, MetricsEndpoint, Source
from finetune_cli.local.observe import Pace, ended_phase, observe, read_artifacts, running_phase, with_end
from finetune_cli.local.processes import Pod, Processes, find_trainer, free_ports, plan_pods
from finetune_cli.local.sources import SourceMap, make_links, map_sources
from finetune_cli.store import DirectoryStore
from finetune_cli.watch import follow_job

LOOK_SECONDS = 0.5
"""Time between two looks at a run."""


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """Everything a run needs, written to its directory."""

    config: RunConfig
    pods: Sequence[Pod]
    store: DirectoryStore


def prepare_run(name: str, spec: FineTuneJobSpec, maps: Sequence[SourceMap], directory: LocalDirectory) -> PreparedRun:
    """Map sources, compare with the run before, and write what the pods will read.

    Raises:
        CliError: the job is finished, a source is missing, or the directory holds another training.
    """
    finished = read_artifacts(DirectoryStore(directory.store)).final_uri
    if finished is not None:
        raise CliError(f"this job is finished; its result is in {finished}", advice="Start anew in another --dir.")
    mapped, links = map_sources(spec, maps)
    if directory.last_run:
        check_same_training(directory.read_config(directory.last_run), mapped, directory)
    (master_port,) = free_ports(1)
    config = build_run_config(name, mapped, directory, run=directory.last_run + 1, master_port=master_port)
    for path in (directory.store, directory.cache, directory.claims):
        path.mkdir(parents=True, exist_ok=True)
    make_links(directory.claims, links)
    directory.write_secrets(os.environ)
    directory.write_config(config)
    return PreparedRun(config, plan_pods(config, directory, os.environ), DirectoryStore(directory.store))


class LocalRun:
    """A run under way. Iterate :meth:`observations` to its end."""

    def __init__(self, prepared: PreparedRun, processes: Processes, figures: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._prepared = prepared
        self._processes = processes
        self._source = figures
        self._clock = clock
        self._asked_at: float | None = None

    def pause(self) -> None:
        """Ask for a checkpoint and the end of the pods, as SIGTERM does in a cluster; asked again, end them at once."""
        if self._asked_at is None:
            self._asked_at = self._clock()
            self._processes.terminate()
        else:
            self._processes.kill()

    def observations(self) -> Iterator[Job]:
        """The job now, and about twice a second, until all pods have ended; the last one says how."""
        config, store = self._prepared.config, self._prepared.store
        figures, pace = NOTHING, None
        ended = False
        while not ended:
            figures = self._source.read() or figures
            step, total = figures.whole(names.STEP), figures.whole(names.TOTAL_STEPS)
            if pace is None and total:
                pace = Pace(step, self._clock())
            left = pace.seconds_left(step, total, self._clock()) if pace else None
            yield observe(config, store, figures, running_phase(figures, pausing=self._asked_at is not None), left)
            ended = self._processes.wait(LOOK_SECONDS)
            self._end_overdue()
        codes = [code if code is not None else -1 for code in self._processes.exit_codes]
        last = observe(config, store, figures, ended_phase(codes), None)
        yield with_end(last, store, codes, [read_termination(pod.termination) for pod in self._prepared.pods])

    def _end_overdue(self) -> None:
        """The grace a cluster would give counts here too."""
        if self._asked_at is not None and self._clock() - self._asked_at > self._prepared.config.spec.pause_policy.grace_seconds:
            self._processes.kill()


@contextmanager
def started(prepared: PreparedRun) -> Iterator[LocalRun]:
    """Start the pods; on leaving none is left."""
    command = [find_trainer(), "train"]
    with Processes(command, prepared.pods) as processes:
        yield LocalRun(prepared, processes, MetricsEndpoint(prepared.pods[0].metrics_port))


@contextmanager
def paused_by_signals(run: LocalRun) -> Iterator[None]:
    """Ctrl-C (and SIGTERM) pauses the run instead of ending this program; a second one ends the pods at once."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        run.pause()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_termination(path: Path) -> TerminationMessage | None:
    """What a pod said last; None when it could not."""
    try:
        return TerminationMessage.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def run_to_end(name: str, spec: FineTuneJobSpec, maps: list[SourceMap], place: LocalDirectory, console: Console) -> Job:
    """Start a run, show it, and return how it ended."""
    with place.locked():
        prepared = prepare_run(name, spec, maps, place)
        with started(prepared) as run, paused_by_signals(run):
            return follow_job(run.observations(), console, until=lambda job: job.phase in {Phase.SUCCEEDED, Phase.PAUSED, Phase.FAILED})


def on_device(spec: FineTuneJobSpec, device: Literal["cpu", "gpu"] | None) -> FineTuneJobSpec:
    """The spec with another device, if one is asked for."""
    if device is None:
        return spec
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"device": device})})
