"""``python -m finetune_cli.demo``: set up, train, pause, resume, show the result. ``--down`` removes all of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_cli.__main__ import print_error
from finetune_cli.demo.on_cluster import BUILD_SECONDS, ClusterDemo, JobFailedError, tool
from finetune_cli.demo.on_machine import LocalDemo
from finetune_cli.demo.removal import remove_from_context
from finetune_cli.demo.scene import OUTPUT, Scene
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.demo.stages import Stages
from finetune_cli.demo.story import tell_story
from finetune_cli.errors import CliError

NO_PROVIDER = 3
"""Exit code of ``finetune-cluster up`` where no cluster is possible."""
NAMED_CONTEXT = "KUBE_CONTEXT"

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    down: Annotated[bool, typer.Option("--down", help="Remove everything a demo made.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Use no cluster, even where one is possible.")] = False,
) -> None:
    """Train an adapter from nothing, with a pause in between."""
    console = Console()
    root = Path.cwd()
    shell = Shell(console, root, os.environ)
    if down:
        take_down(shell, root)
        return
    scene = Scene.of(root)
    stages = Stages(console)
    kubeconfig = None if local else start_cluster(shell, stages)
    if kubeconfig is None:
        local_demo = LocalDemo(scene, shell, console)
        local_demo.play(stages)
        place = local_demo.place
        finish(
            stages,
            console,
            [
                f"uv run kubectl-finetune infer --dir {place.root} --sample 1    # ask the adapter; chat --dir for a talk",
                f"uv run kubectl-finetune curve --uri {place.store.as_uri()}",
                "make demo-down    # removes all of it",
            ],
        )
        return
    play_on_cluster(ClusterDemo(scene, shell, console), kubeconfig, stages, console, shell)


def start_cluster(shell: Shell, stages: Stages) -> str | None:
    """Bring a cluster up; None where this machine can have none."""
    with stages("A cluster"):
        try:
            return shell.capture(tool("finetune-cluster"), "up", timeout_seconds=BUILD_SECONDS).strip().splitlines()[-1]
        except CommandFailedError as error:
            if error.code != NO_PROVIDER:
                raise
            return None  # the command has said why


def play_on_cluster(cluster_demo: ClusterDemo, kubeconfig: str, stages: Stages, console: Console, shell: Shell) -> None:
    """The whole demo; when it fails, everything that tells why."""
    try:
        cluster_demo.use_cluster(kubeconfig)
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
            'eval "$(uv run finetune-cluster env)"    # kubectl and helm for this cluster',
            f"kubectl describe finetunejob {name}",
            "kubectl explain finetunejob.spec.training",
            f"uv run kubectl-finetune infer {name} --sample 1    # ask the adapter; chat for a talk",
            f"uv run kubectl-finetune describe {name}",
            f"uv run kubectl-finetune curve {name}",
            "make demo-down    # removes all of it",
        ],
    )


def finish(stages: Stages, console: Console, commands: list[str]) -> None:
    """Show the times and what to do next."""
    console.print()
    console.print(stages.render())
    console.print()
    console.print("Next:", style="bold")
    for command in commands:
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def take_down(shell: Shell, root: Path) -> None:
    """Remove what a demo made; of a cluster that the user named, only what is the demo's own."""
    try:
        if os.environ.get(NAMED_CONTEXT):
            remove_from_context(shell, Scene.of(root))
        shell.run(tool("finetune-cluster"), "down", timeout_seconds=BUILD_SECONDS)
    except CommandFailedError as error:
        if error.code != NO_PROVIDER:
            raise
    shutil.rmtree(root / OUTPUT, ignore_errors=True)


def main() -> None:
    """Run the demo; a failure becomes its sentence and exit code 1."""
    try:
        app()
    except CliError as error:
        print_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
