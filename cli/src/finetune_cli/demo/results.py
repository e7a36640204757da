"""What the demo shows at the end: the result, the curve, the checkpoints, the time, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_api.contract.store import FINAL_PREFIX
from finetune_api.models.status import CheckpointStatus
from finetune_cli.commands.look import print_curve
from finetune_cli.curve import read_curve
from finetune_cli.errors import CliError
from finetune_cli.store import Store
from finetune_cli.terminal import format_bytes


def show_results(store: Store, checkpoints: Sequence[CheckpointStatus], console: Console) -> None:
    """Print what a finished job left.

    Raises:
        CliError: there is no result.
    """
    files = store.files(f"{FINAL_PREFIX}/")
    if not files:
        raise CliError(f"{store.uri}/{FINAL_PREFIX} is empty though the job succeeded")
    console.print(Text.assemble("The adapter is in ", (f"{store.uri}/{FINAL_PREFIX}", "bold green")), soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 2))
    for file in files:
        table.add_row(file.key.removeprefix(f"{FINAL_PREFIX}/"), format_bytes(file.size))
    console.print(table)
    console.print()
    print_curve(read_curve(store), console)
    console.print()
    console.print(f"Checkpoints below {store.uri}:", soft_wrap=True, highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 2))
    for checkpoint in checkpoints:
        table.add_row(
            f"step {checkpoint.step}",
            f"attempt {checkpoint.attempt}",
            checkpoint.trigger,
            format_bytes(checkpoint.size_bytes),
            checkpoint.uri.removeprefix(f"{store.uri}/"),
        )
    console.print(table)
