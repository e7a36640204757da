"""What there is to know of the fields of a FineTuneJob, said by the models that also make its CRD and its reference."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune_api.advice import ATTACHING, RECOMMENDATIONS, WITHOUT_EFFECT, Advice
from finetune_api.describe import describe_meaning, facts
from finetune_api.models.base import ResumeClass, Tier
from finetune_api.reference import RESUME_MEANING, job_blocks, type_of
from finetune_api.rules import RULES
from finetune_cli.errors import CliError
from finetune_cli.terminal import list_table

Fields = Mapping[str, Mapping[str, Any]]
"""Path, relative to spec -> JSON schema."""
ROOT: Final = "spec."
NEAREST: Final = 3
"""Names offered in place of one that is unknown."""
ALIKE: Final = 0.75
"""Likeness from which on a name is offered, as difflib measures it."""


def job_fields() -> dict[str, Mapping[str, Any]]:
    """Every field of a job's spec."""
    return {path: node for block in job_blocks() for path, node in block.fields.items()}


def required_fields() -> set[str]:
    """Those that every job has to write."""
    top, *blocks = job_blocks()
    return {f"{block.path}.{name}" for block in blocks if block.path in top.node["required"] for name in block.node["required"]}


def explain_job(tier: Tier) -> RenderableType:
    """A line for every field up to a tier, block by block."""
    parts: list[RenderableType] = []
    for block in job_blocks():
        fields = up_to(tier, block.fields)
        if fields:
            meaning = describe_meaning(block.path, block.node)
            parts += [Text.assemble((block.path or ROOT.rstrip("."), "bold"), f"  {meaning}"), render_list(fields), Text()]
    return Group(*parts)


def explain_name(name: str, tier: Tier) -> RenderableType:
    """All that is known of the field at a path, or of every field of a name; of a block a line for each field up to a tier.

    Raises:
        CliError: no field and no block is called so; the message names the nearest.
    """
    fields = job_fields()
    wanted = _plain(name.removeprefix(ROOT))
    found = [path for path in fields if _plain(path) == wanted] or [path for path in fields if _plain(path).endswith(f".{wanted}")]
    below = up_to(tier, {path: node for path, node in fields.items() if f".{wanted}." in f".{_plain(path)}"})
    if not found and not below:
        raise CliError(f"spec has no field {name}{_nearest(wanted, fields)}", advice="kubectl finetune explain lists all fields.")
    parts = [render_field(path, fields[path]) for path in found]
    return Group(*parts, render_list(below)) if below else Group(*parts)


def up_to(tier: Tier, fields: Fields) -> Fields:
    """Those of some fields that are no less prominent than ``tier`` (A-13)."""
    shown = list(Tier)[: list(Tier).index(tier) + 1]
    return {path: node for path, node in fields.items() if node["x-tier"] in shown}


def render_list(fields: Fields) -> Table:
    """A line for each field: path, default, range or choices, and how its description begins."""
    table = list_table()
    table.expand = True
    table.add_column("FIELD", no_wrap=True)
    table.add_column("DEFAULT", no_wrap=True, max_width=12)
    table.add_column("RANGE", no_wrap=True, max_width=18)
    table.add_column("MEANING", no_wrap=True, ratio=1)
    for path, node in fields.items():
        known = facts(path, node)
        table.add_row(path, known["Default"].partition(";")[0], known["Range"] or _type(node), describe_meaning(path, node))
    return table


def render_field(path: str, node: Mapping[str, Any]) -> RenderableType:
    """Meaning, and beside each other: type, unit, default, range, what is recommended, what an edit means, advice and rules."""
    known = facts(path, node)
    resume = ResumeClass(node["x-resume"])
    rows = [
        ("type", _type(node)),
        ("unit", known["Unit"]),
        ("default", known["Default"] or ("none: required" if path in required_fields() else "none")),
        ("range", known["Range"]),
        ("recommended", known["Recommended"]),
        ("tier", str(node["x-tier"])),
        ("edit after a run", f"{resume}: {RESUME_MEANING[resume]}"),
        *(("warned where it", said) for said in _advice(path, (*RECOMMENDATIONS, *ATTACHING))),
        *(("told where it", said) for said in _advice(path, WITHOUT_EFFECT)),
        *(("rule", f"{rule.message} ({rule.requirement})") for rule in RULES if rule.path == path),
        ("requirements", str(node.get("x-requirement", ""))),
    ]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(f"  {label}", Text(text))
    return Group(Text(f"{ROOT}{path}", style="bold"), Text(describe_meaning(path, node)), table, Text())


def _advice(path: str, table: Sequence[Advice]) -> Iterator[str]:
    return (f"{each.text} ({each.requirement})" for each in table if each.path == path)


def _type(node: Mapping[str, Any]) -> str:
    return type_of(node).replace("`", "")


def _plain(path: str) -> str:
    """A path without the marks of lists."""
    return path.replace("[]", "")


def _nearest(wanted: str, fields: Fields) -> str:
    """Fields that are nearly called so, by their whole paths or their own names."""
    names: dict[str, str] = {}
    for path in fields:
        names.setdefault(path.rpartition(".")[2].lower(), path)
        names[path.lower()] = path
    close = difflib.get_close_matches(wanted.lower(), names, n=NEAREST, cutoff=ALIKE)
    return f"; did you mean {', '.join(dict.fromkeys(names[each] for each in close))}?" if close else ""
