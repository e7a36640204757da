"""kubectl finetune: the command line. Found on PATH as kubectl-finetune, kubectl runs it as a plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer
from rich.console import Console
from rich.text import Text

from finetune_cli.commands import act, budget, check, dataset, evaluate, infer, local, look, model, results
from finetune_cli.errors import CliError

app = typer.Typer(
    name="kubectl finetune",
    help="Watch, change, check and run FineTuneJobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Look": (
        look.watch,
        look.describe,
        look.logs,
        look.curve,
        look.models,
        look.gpus,
        look.datasets,
        budget.budget,
        look.doctor,
        results.artifacts,
        results.download,
        evaluate.evaluate,
    ),
    "Change": (act.pause, act.resume, act.stop, act.cancel, act.retry, act.approve, budget.topup, act.export, act.checkpoint, act.promote),
    "Try": (infer.infer, infer.chat),
    "Without a cluster": (check.explain, check.validate, check.plan, local.run_local),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(dataset.app, name="dataset", rich_help_panel="Data")
app.add_typer(model.app, name="model", rich_help_panel="Data")


def main() -> None:
    """Run a command; a :class:`CliError` becomes its sentence and exit code 1."""
    try:
        app()
    except CliError as error:
        print_error(error)
        sys.exit(1)


def print_error(error: CliError) -> None:
    """Show what went wrong and what helps, on standard error."""
    console = Console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), str(error)))
    if error.advice:
        console.print(Text(error.advice, style="yellow"))


if __name__ == "__main__":
    main()
