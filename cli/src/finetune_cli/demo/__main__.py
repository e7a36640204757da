"""``python -m finetune_cli.demo``: set up, train, pause, resume, show the result. ``--down`` removes all of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_cli.__main__ import print_error
from finetune_cli.access import Access
from finetune_cli.demo.leftovers import show_leftovers
from finetune_cli.demo.on_cluster import BUILD_SECONDS, ClusterDemo, JobFailedError, tool
from finetune_cli.demo.on_machine import LocalDemo
from finetune_cli.demo.record import CONTEXT_VARIABLE, PROVIDER_VARIABLE, Played, Record, home_of, repeated
from finetune_cli.demo.removal import remove_from_context
from finetune_cli.demo.scene import OUTPUT, Scene
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.demo.stages import Stages
from finetune_cli.demo.story import tell_story
from finetune_cli.errors import CliError

NO_PROVIDER = 3
"""Exit code of ``finetune-cluster up`` where no cluster is possible."""
STATUS_SECONDS = 60

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    down: Annotated[bool, typer.Option("--down", help="Remove everything a demo made.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Use no cluster, even where one is possible.")] = False,
    model: Annotated[
        bool, typer.Option("--model", help="Only make the tiny model and upload it into the store of the current context's cluster.")
    ] = False,
) -> None:
    """Train an adapter from nothing, with a pause in between."""
    console = Console()
    root = Path.cwd()
    shell = Shell(console, root, os.environ)
    if down:
        take_down(shell, root, console)
        return
    scene = Scene.of(root)
    if model:
        ClusterDemo(scene, shell, console).bring_model(Access().connect())
        return
    stages = Stages(console)
    kubeconfig = None if local else start_cluster(shell, stages)
    if kubeconfig is None:
        play_locally(LocalDemo(scene, shell, console), stages, console, shell)
        return
    context = shell.environment.get(CONTEXT_VARIABLE, "")
    play_on_cluster(ClusterDemo(scene, shell, console, context), kubeconfig, stages, console, shell)


def start_cluster(shell: Shell, stages: Stages) -> str | None:
    """Bring a cluster up; None where this machine can have none."""
    with stages("A cluster"):
        try:
            return shell.capture(tool("finetune-cluster"), "up", timeout_seconds=BUILD_SECONDS).strip().splitlines()[-1]
        except CommandFailedError as error:
            if error.code != NO_PROVIDER:
                raise
            return None  # the command has said why


def play_locally(local_demo: LocalDemo, stages: Stages, console: Console, shell: Shell) -> None:
    """The whole demo without a cluster."""
    Record(home_of(shell.environment)).add(Played())
    local_demo.play(stages)
    place = local_demo.place
    plugin = program(shell, "kubectl-finetune")
    finish(
        stages,
        console,
        [
            f"{plugin} infer --dir {place.root} --sample 1    # ask the adapter; chat --dir for a talk",
            f"{plugin} curve --uri {place.store.as_uri()}",
            f"{repeated(shell.environment)}make demo-down    # removes it",
        ],
    )


def play_on_cluster(cluster_demo: ClusterDemo, kubeconfig: str, stages: Stages, console: Console, shell: Shell) -> None:
    """The whole demo; when it fails, everything that tells why."""
    again = repeated(shell.environment)
    provider = shell.capture(tool("finetune-cluster"), "status", timeout_seconds=STATUS_SECONDS, quietly=True).partition(":")[0]
    played = Played.of(shell.environment, provider)
    cluster_demo.use_cluster(kubeconfig)
    cluster_demo.check_ownership(stages)
    Record(home_of(shell.environment)).add(played)
    try:
        cluster_demo.play(stages)
    except CliError as error:
        job = error.job if isinstance(error, JobFailedError) else None
        tell_story(cluster_demo.ref, job, shell, console)
        raise
    name = f"{cluster_demo.ref.name} -n {cluster_demo.ref.namespace}"
    finish(
        stages,
        console,
        [
            f'eval "$({again}{program(shell, "finetune-cluster")} env)"    # kubectl, its plugin finetune and helm, for this cluster',
            f"kubectl describe finetunejob {name}",
            "kubectl explain finetunejob.spec.training",
            f"kubectl finetune infer {name} --sample 1    # ask the adapter; chat for a talk",
            f"kubectl finetune describe {name}",
            f"kubectl finetune curve {name}",
            f"{again}make demo-down    # removes what the demo made {played}",
        ],
    )


def program(shell: Shell, name: str) -> str:
    """A program of this project as it can be typed in the checkout, where uv may not be on PATH."""
    path = Path(tool(name))
    return str(path.relative_to(shell.root)) if path.is_relative_to(shell.root) else str(path)


def finish(stages: Stages, console: Console, commands: list[str]) -> None:
    """Show the times and what to do next."""
    console.print()
    console.print(stages.render())
    console.print()
    console.print("Next:", style="bold")
    for command in commands:
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def take_down(shell: Shell, root: Path, console: Console) -> None:
    """Remove what demos made and tell what stays: what the environment names, else every demo that is on record."""
    environment = shell.environment
    record = Record(home_of(environment))
    demos = to_take_down(record.read(), environment)
    if not demos:
        console.print("No demo is on record; ending the cluster of this machine, if there is one.")
        end_cluster(shell)
    for played in demos:
        console.print(f"The demo {played}:", style="bold")
        for name, value in played.variables.items():
            shell.export(name, value)
        if played.context:
            remove_from_context(shell, Scene.of(root), played.context, console)
        if played.context or played.provider:
            shell.run(tool("finetune-cluster"), "down", timeout_seconds=BUILD_SECONDS)
        record.remove(played)
    shutil.rmtree(root / OUTPUT, ignore_errors=True)
    show_leftovers(root, shell, console)


def end_cluster(shell: Shell) -> None:
    """End a cluster that a demo may have begun to make; where none is possible there is none."""
    try:
        shell.run(tool("finetune-cluster"), "down", timeout_seconds=BUILD_SECONDS)
    except CommandFailedError as error:
        if error.code != NO_PROVIDER:
            raise


def to_take_down(recorded: list[Played], environment: Mapping[str, str]) -> list[Played]:
    """Which demos are meant: those of the cluster that the environment names, else all."""
    context, provider = environment.get(CONTEXT_VARIABLE, ""), environment.get(PROVIDER_VARIABLE, "")
    if not context and not provider:
        return recorded
    named = [played for played in recorded if (played.context == context if context else played.provider == provider)]
    return named or [Played.of(environment, provider)]


def main() -> None:
    """Run the demo; a failure becomes its sentence and exit code 1."""
    try:
        app()
    except CliError as error:
        print_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
