"""How things look: colours of phases, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_api.colours import PHASE_COLOUR, Colour

_STYLE: Final = {Colour.BLUE: "blue", Colour.GREEN: "green", Colour.ORANGE: "dark_orange", Colour.RED: "red"}
PHASE_STYLE: Final = {phase: _STYLE[colour] for phase, colour in PHASE_COLOUR.items()}
"""The colours of the dashboards (P-11), by the terminal's names."""


LIST_WIDTH: Final = 240
"""Characters of a line of a list that is no terminal's."""


def list_console() -> Console:
    """A console for lists: where they go to a file or another program, names are not cut to a terminal's width."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, LIST_WIDTH))


def list_table() -> Table:
    """An empty table without lines, as lists are shown in."""
    return Table(box=None, header_style="dim", padding=(0, 3, 0, 0))


def format_duration(seconds: float) -> str:
    """Seconds as ``8s``, ``1m02s`` or ``3h07m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_bytes(size: int) -> str:
    """Bytes in decimal units, as object stores bill them."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_rate(per_second: float) -> str:
    """Tokens per second, shortened from a thousand on."""
    return f"{per_second / 1000:.1f}k tok/s" if per_second >= 1000 else f"{per_second:.0f} tok/s"


@contextmanager
def telling(console: Console) -> Iterator[Callable[[str], None]]:
    """Show what happens: one line that changes on a terminal, a line per change anywhere else."""
    if console.is_terminal:
        with console.status("") as status:
            yield lambda line: status.update(Text(line))
        return
    last = ""

    def tell(line: str) -> None:
        nonlocal last
        if line != last:
            console.print(line, highlight=False, markup=False)
            last = line

    yield tell


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
