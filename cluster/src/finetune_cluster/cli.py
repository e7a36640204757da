"""The command line: `finetune-cluster up | down | status | kubeconfig | env | images | tools`."""

import enum
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from finetune_cluster.clusters import open_cluster
from finetune_cluster.errors import ClusterError, NotRunningError
from finetune_cluster.gobuild import link_names
from finetune_cluster.home import HOME_VARIABLE, Home
from finetune_cluster.images.recipes import RECIPES
from finetune_cluster.tools import TOOLS, install_tool

app = typer.Typer(
    name="finetune-cluster",
    help="A Kubernetes cluster for tests and the demo: a context named in KUBE_CONTEXT, else kind where Docker answers, "
    "else a single node of processes on this machine (root on Linux); FINETUNE_CLUSTER=kind or node asks for one of the two. "
    f"State is kept in ${HOME_VARIABLE} (default ~/.cache/finetune). Exit code 3: no cluster is possible here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


_OWN_PROGRAMS = ("finetune-cluster", "kubectl-finetune")


class Output(enum.StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


@app.command()
def up(gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs that each node reports; there is no device behind them.")] = 8) -> None:
    """Start the cluster, or repair it; what already runs as it should is left alone."""
    with _reported():
        home = Home.of(os.environ)
        with home.locked("cluster"):
            open_cluster(home, os.environ).up(gpus)
        _link_own_programs(home)
        typer.echo(str(home.kubeconfig))


@app.command()
def down(*, purge: Annotated[bool, typer.Option("--purge", help="Remove images and builds too.")] = False) -> None:
    """End the cluster and remove what it left on the machine; images and builds are kept."""
    home = Home.of(os.environ)
    with _reported(), home.locked("cluster"), home.locked("images"):
        cluster = open_cluster(home, os.environ)
        cluster.down()
        if purge:
            cluster.purge()


@app.command()
def status() -> None:
    """Say what runs. Exit code 4: the cluster is not, or not wholly, running."""
    with _reported():
        cluster = open_cluster(Home.of(os.environ), os.environ)
        running = cluster.is_running()
        typer.echo(f"{cluster.provider}: {'running' if running else 'not running'}")
        if not running:
            for line in cluster.describe():
                typer.echo(f"  {line}")
            raise NotRunningError("the cluster is not running; `finetune-cluster up` starts or repairs it")
        for line in cluster.describe():
            typer.echo(f"  {line}")


@app.command()
def kubeconfig() -> None:
    """Print the path of the kubeconfig. Exit code 4: there is no cluster."""
    with _reported():
        typer.echo(str(_running_home().kubeconfig))


@app.command()
def env() -> None:
    """Print shell exports: KUBECONFIG, PATH with the tools, and the names of the images of the present sources."""
    with _reported():
        home = Home.of(os.environ)
        images = open_cluster(home, os.environ).images
        _link_own_programs(home)
        values = {"KUBECONFIG": str(home.kubeconfig)}
        values |= {f"FINETUNE_IMAGE_{recipe.name.upper()}": images.reference(recipe) for recipe in RECIPES.values()}
        for name, value in values.items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        typer.echo(f'export PATH={shlex.quote(str(home.bin))}:"$PATH"')


@app.command()
def images(
    names: Annotated[list[str] | None, typer.Argument(help=f"{' '.join(RECIPES)} or all", show_default="all")] = None,
    output: Annotated[Output, typer.Option(help="text: a name on each line, as asked for; json: an object.")] = Output.TEXT,
) -> None:
    """Build the images whose inputs changed and bring them to the cluster's nodes; print their names."""
    with _reported():
        wanted = _wanted(names or ["all"], list(RECIPES), "image")
        home = Home.of(os.environ)
        store = open_cluster(home, os.environ).images
        references = {name: store.ensure(RECIPES[name]) for name in wanted}
        typer.echo(json.dumps(references) if output is Output.JSON else "\n".join(references.values()))


@app.command()
def tools(names: Annotated[list[str], typer.Argument(help=f"{' '.join(TOOLS)} or all")]) -> None:
    """Install tools and print the paths of the programs."""
    with _reported():
        home = Home.of(os.environ)
        with home.locked("tools"):
            for name in _wanted(names, list(TOOLS), "tool"):
                typer.echo(str(install_tool(TOOLS[name], home)))


def _link_own_programs(home: Home) -> None:
    """Put the clone's own programs beside the tools: with the folder on PATH, `kubectl finetune` finds its plugin."""
    with home.locked("tools"):
        for name in _OWN_PROGRAMS:
            program = Path(sys.executable).parent / name
            if program.exists():
                link_names(program, [name], home.bin)


def _running_home() -> Home:
    home = Home.of(os.environ)
    if not home.kubeconfig.exists():
        raise NotRunningError("there is no cluster; `finetune-cluster up` starts one")
    return home


def _wanted(names: list[str], known: list[str], what: str) -> list[str]:
    if names == ["all"]:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ClusterError(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


@contextmanager
def _reported() -> Iterator[None]:
    """End the process with the error's exit code, its message on standard error."""
    try:
        yield
    except ClusterError as error:
        typer.secho("error: ", fg=typer.colors.RED, err=True, nl=False)
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
