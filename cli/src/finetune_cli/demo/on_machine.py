"""The demo without a cluster: the same manifest as processes on this machine."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console

from finetune_api.models.status import Phase
from finetune_cli.cluster import bounded
from finetune_cli.demo.results import show_results
from finetune_cli.demo.scene import DATA, MANIFEST, MODEL_SCRIPT, OUTPUT, Scene
from finetune_cli.demo.shell import Shell
from finetune_cli.demo.stages import Stages
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.local.run import paused_by_signals, prepare_run, started
from finetune_cli.local.sources import SourceMap
from finetune_cli.store import DirectoryStore
from finetune_cli.view import render_summary
from finetune_cli.watch import follow_job

MODEL_SECONDS = 120
RUN_SECONDS = 1800
LEFT_OUT = """\
The same manifest runs as processes on this machine, with a directory as its store.
Left out: the cluster, the operator and the chart, scaling by kubectl (the pause is a SIGTERM, the resume a second start),
the object store, and everything only a cluster has (preemption, lost nodes, status in the API, Prometheus)."""


class LocalDemo:
    """The same story without a cluster."""

    def __init__(self, scene: Scene, shell: Shell, console: Console) -> None:
        self._scene = scene
        self._shell = shell
        self._console = console
        self.place = LocalDirectory(scene.root / OUTPUT / "local")

    def play(self, stages: Stages) -> None:
        """From the model to the result."""
        self._console.print(LEFT_OUT, style="yellow", soft_wrap=True)
        with stages("A tiny model"):
            self._shell.run(sys.executable, MODEL_SCRIPT, self._scene.model_directory, timeout_seconds=MODEL_SECONDS)
        shutil.rmtree(self.place.root, ignore_errors=True)
        with stages("Train, and pause by SIGTERM"):
            paused = self._run(pause=True, after=None)
            if paused.phase is not Phase.PAUSED or paused.status.checkpoints.latest is None:
                raise CliError(
                    f"the run did not pause: it is {paused.phase}\n{render_summary(paused).plain}", advice=f"Logs: {self.place.run(1)}"
                )
            self._console.print(f"Paused: the checkpoint of step {paused.status.checkpoints.latest.step} is complete, no process is left.")
        with stages("Second start, to the end"):
            done = self._run(pause=False, after=paused)
            if done.phase is not Phase.SUCCEEDED:
                raise CliError(
                    f"the run did not succeed: it is {done.phase}\n{render_summary(done).plain}", advice=f"Logs: {self.place.run(2)}"
                )
        with stages("Result"):
            show_results(DirectoryStore(self.place.store), done.status.checkpoints.recent, self._console)

    def command(self) -> str:
        """What a user would type."""
        maps = f"--map {self._scene.spec.model.uri}={self._scene.model_directory} --map {self._scene.spec.dataset.uri}={DATA}"
        return f"kubectl-finetune run-local -f {MANIFEST} --dir {self.place.root.relative_to(self._scene.root)} {maps}"

    def _run(self, *, pause: bool, after: Job | None) -> Job:
        self._console.print(f"$ {self.command()}", style="bold", soft_wrap=True)
        maps = [
            SourceMap(self._scene.spec.model.uri, self._scene.root / self._scene.model_directory),
            SourceMap(self._scene.spec.dataset.uri, self._scene.root / DATA),
        ]
        with self.place.locked():
            prepared = prepare_run(self._scene.document.name, self._scene.spec, maps, self.place)
            with started(prepared) as run, paused_by_signals(run):
                jobs = bounded(run.observations(), RUN_SECONDS, "end of the run")
                if pause:
                    after = follow_job(jobs, self._console, until=self._far_enough, after=after)
                    run.pause()
                return follow_job(jobs, self._console, until=has_stopped, after=after)

    def _far_enough(self, job: Job) -> bool:
        progress = job.status.progress
        if has_stopped(job):
            raise CliError(
                f"the run ended before it could be paused: it is {job.phase}\n{render_summary(job).plain}",
                advice=f"Logs: {self.place.run(1)}",
            )
        return progress is not None and progress.total_steps > 0 and progress.step >= self._scene.pause_step(progress.total_steps)


def has_stopped(job: Job) -> bool:
    """Whether no process of a local run is left."""
    return job.phase in {Phase.PAUSED, Phase.SUCCEEDED, Phase.FAILED}
