"""The demo on a cluster."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rich.console import Console

from finetune_api.constants import ANNOTATION_ALLOW_DELETE, DEFAULT_STORE_SECRET, LABEL_JOB
from finetune_api.models.status import Phase
from finetune_cli.access import Access
from finetune_cli.bucket import open_bucket
from finetune_cli.cluster import Cluster, bounded
from finetune_cli.demo.ownership import DEMO_LABEL, SYSTEM, Owners, Thing, job_of, rows_of
from finetune_cli.demo.results import show_results
from finetune_cli.demo.scene import CHART, DATA, JOB_NAMESPACE, MANIFEST, MODEL_SCRIPT, RELEASE, SYSTEM_NAMESPACE, Scene
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.demo.stages import Stages
from finetune_cli.errors import CliError, JobGoneError
from finetune_cli.job import Job, JobRef
from finetune_cli.portforward import reachable
from finetune_cli.store import endpoint_of, job_store
from finetune_cli.terminal import format_duration
from finetune_cli.watch import Until, follow_job, has_ended

BUILD_SECONDS = 3600
"""The first start of a cluster and the first build of the images compile a lot."""
INSTALL_SECONDS = 600
COMMAND_SECONDS = 120
TRAINING_SECONDS = 1800
PAUSE_SECONDS = 300


class JobFailedError(CliError):
    """The job did not do what the demo shows; ``job`` tells why."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class ClusterDemo:
    """What a user would do, one method per stage.

    Args:
        scene: The example job.
        shell: Runs the commands.
        console: Where it is shown.
        context: The cluster is the user's own, named by this context: what is there already is neither taken over nor changed.
    """

    def __init__(self, scene: Scene, shell: Shell, console: Console, context: str = "") -> None:
        self._scene = scene
        self._context = context
        self._shell = shell
        self._console = console
        self.ref = JobRef(scene.document.name, JOB_NAMESPACE)
        self._shown: Job | None = None

    def play(self, stages: Stages) -> None:
        """All of it, from the images to the result. The cluster is up."""
        with stages("Images of this checkout"):
            images = self.build_images()
        with stages("Install the operator"):
            self.install(images)
        cluster = Access(self._shell.environment["KUBECONFIG"]).connect()
        with stages("A tiny model and its data"):
            self.bring_model(cluster)
            self.bring_data()
        with stages("Train"):
            self.apply(cluster)
            self.follow_to_pause(cluster)
        with stages("Pause"):
            paused = self.pause(cluster)
        with stages("Resume, to the end"):
            done = self.resume(cluster, paused)
        with stages("Result"), job_store(done, cluster) as store:
            self._kubectl("get", "finetunejob", self.ref.name)
            show_results(store, done.status.checkpoints.recent, self._console)

    def check_ownership(self, stages: Stages) -> None:
        """Refuse a named cluster where something of others is in the way; one that finetune-cluster made is the demo's to use."""
        if self._context:
            with stages("Nothing of others in the way"):
                Owners(self._shell).refuse_foreign(self._scene, self._context)

    def use_cluster(self, kubeconfig: str) -> None:
        """Let all commands reach the cluster, with the tools that belong to it."""
        helm = self._shell.capture(tool("finetune-cluster"), "tools", "helm", timeout_seconds=BUILD_SECONDS).strip()
        self._shell.export("PATH", f"{Path(helm).parent}:{self._shell.environment['PATH']}")
        self._shell.export("KUBECONFIG", kubeconfig)
        os.environ["PATH"] = self._shell.environment["PATH"]  # for the kubectl of port-forwards

    def build_images(self) -> dict[str, str]:
        """Build what changed; returns name -> reference."""
        output = self._shell.capture(tool("finetune-cluster"), "images", "all", "--output", "json", timeout_seconds=BUILD_SECONDS)
        images: dict[str, str] = json.loads(output)
        return images

    def install(self, images: dict[str, str]) -> None:
        """Helm install, or upgrade where it is installed; a release that was left half-way is removed first."""
        at = ("--namespace", SYSTEM_NAMESPACE)
        if self._release_status().startswith("pending"):
            self._shell.run("helm", "uninstall", RELEASE, *at, "--wait", timeout_seconds=INSTALL_SECONDS)
        settings = [flag for name, reference in images.items() for flag in ("--set", f"image.{name}={reference}")]
        if self._context:
            self._make_namespace()
        install = (
            "helm",
            "upgrade",
            "--install",
            RELEASE,
            str(CHART),
            *at,
            *(() if self._context else ("--create-namespace", "--take-ownership")),
            "--wait",
            "--timeout",
            "5m",
            "--hide-notes",
        )
        self._shell.run(*install, *settings, timeout_seconds=INSTALL_SECONDS)

    def bring_model(self, cluster: Cluster) -> None:
        """Make the model and upload it into the store the chart brought."""
        directory, uri = self._scene.model_directory, self._scene.spec.model.uri
        self._shell.run(sys.executable, MODEL_SCRIPT, directory, timeout_seconds=COMMAND_SECONDS)
        credentials = cluster.secret(DEFAULT_STORE_SECRET, JOB_NAMESPACE)
        with reachable(endpoint_of(uri, credentials), cluster.access) as endpoint:
            self._console.print(f"  upload of {directory} to {uri} through a port-forward to the store", style="dim", soft_wrap=True)
            bucket = open_bucket(uri, credentials, endpoint)
            for path in sorted((self._scene.root / directory).iterdir()):
                bucket.write(path.name, path)

    def bring_data(self) -> None:
        """Put the rows into a ConfigMap. Server-side apply: they are too many for the annotation of a client-side one."""
        name, key = self._scene.config_map
        make = ("kubectl", "create", "configmap", name, f"--from-file={key}={DATA}", "--dry-run=client", "-o", "yaml")
        document = self._shell.capture(*make, timeout_seconds=COMMAND_SECONDS, quietly=True)
        apply = ("kubectl", "apply", "--server-side", "-f", "-")
        self._shell.run(*apply, stdin=document, shown=f"{' '.join(make)} | {' '.join(apply)}", timeout_seconds=COMMAND_SECONDS)
        self._mark(rows_of(self._scene))

    def apply(self, cluster: Cluster) -> None:
        """Apply the example; a job of an earlier demo is deleted first."""
        if self._exists(cluster):
            self._kubectl("annotate", "finetunejob", self.ref.name, f"{ANNOTATION_ALLOW_DELETE}=true", "--overwrite")
            self._kubectl("delete", "finetunejob", self.ref.name, "--wait", timeout_seconds=PAUSE_SECONDS)
        self._kubectl("apply", "-f", str(MANIFEST))
        self._mark(job_of(self._scene))

    def follow_to_pause(self, cluster: Cluster) -> None:
        """Show the live bar until a third of the steps is done."""

        def far_enough(job: Job) -> bool:
            progress = job.status.progress
            return progress is not None and progress.total_steps > 0 and progress.step >= self._scene.pause_step(progress.total_steps)

        self._follow(cluster, far_enough, TRAINING_SECONDS, "third of the steps")

    def pause(self, cluster: Cluster) -> Job:
        """Scale to zero; the pods go when the checkpoint is complete."""
        self._kubectl("scale", f"finetunejob/{self.ref.name}", "--replicas=0")
        paused = self._follow(
            cluster,
            lambda job: job.phase is Phase.PAUSED and job.is_current and not cluster.pods(self.ref),
            PAUSE_SECONDS,
            "pause without pods",
        )
        latest, pause = paused.status.checkpoints.latest, paused.status.pause
        if latest is None or pause is None or pause.step != latest.step:
            raise JobFailedError(
                f"paused at step {pause.step if pause else '?'}, yet the newest checkpoint is of step {latest.step if latest else '-'}",
                paused,
            )
        parts = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in pause.seconds.items())
        self._console.print(
            f"Paused at step {latest.step}: {latest.uri} is complete, no pod is left, nothing is lost. {parts}", soft_wrap=True
        )
        self._kubectl("get", "finetunejob", self.ref.name)
        self._kubectl("get", "pods", "-l", f"{LABEL_JOB}={self.ref.name}")
        return paused

    def resume(self, cluster: Cluster, paused: Job) -> Job:
        """Scale back and follow to the end; the job must go on where it was."""
        self._kubectl("scale", f"finetunejob/{self.ref.name}", f"--replicas={paused.status.last_replicas or 1}")
        done = self._follow(cluster, has_ended, TRAINING_SECONDS, "end of the training")
        resumed, latest = done.status.attempts[-1], paused.status.checkpoints.latest
        if latest is not None and resumed.from_step != latest.step:
            raise JobFailedError(f"resumed from step {resumed.from_step} instead of {latest.step}", done)
        return done

    def _follow(self, cluster: Cluster, until: Until, seconds: float, waiting_for: str) -> Job:
        jobs = bounded(cluster.follow(self.ref), seconds, waiting_for)
        job = follow_job(jobs, self._console, until=lambda job: until(job) or has_ended(job), after=self._shown)
        self._shown = job
        if not until(job) or job.phase in {Phase.FAILED, Phase.CANCELLED}:
            raise JobFailedError(f"{self.ref}: no {waiting_for}, the job is {job.phase}", job)
        return job

    def _make_namespace(self) -> None:
        """Make the namespace with the label in one step: without it the demo would not know it again."""
        document = {"apiVersion": "v1", "kind": SYSTEM.kind, "metadata": {"name": SYSTEM.name, "labels": {DEMO_LABEL: "true"}}}
        text = json.dumps(document)
        apply = ("kubectl", "apply", "--server-side", "-f", "-")
        self._shell.run(*apply, stdin=text, shown=f"echo '{text}' | {' '.join(apply)}", timeout_seconds=COMMAND_SECONDS)

    def _mark(self, thing: Thing) -> None:
        """Note in a named cluster that an object is the demo's."""
        if self._context:
            self._shell.run("kubectl", "label", *thing.words, f"{DEMO_LABEL}=true", "--overwrite", timeout_seconds=COMMAND_SECONDS)

    def _exists(self, cluster: Cluster) -> bool:
        try:
            cluster.job(self.ref)
        except JobGoneError:
            return False
        return True

    def _release_status(self) -> str:
        command = ("helm", "status", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--output", "json")
        try:
            return str(json.loads(self._shell.capture(*command, timeout_seconds=COMMAND_SECONDS, quietly=True))["info"]["status"])
        except CommandFailedError:
            return ""

    def _kubectl(self, *words: str, timeout_seconds: float = COMMAND_SECONDS) -> None:
        self._shell.run("kubectl", *words, "--namespace", JOB_NAMESPACE, timeout_seconds=timeout_seconds)


def tool(name: str) -> str:
    """A program of this project, beside the running interpreter."""
    return str(Path(sys.executable).parent / name)
