#!/usr/bin/env python3
"""Write the table of values in the chart's README from the comments in values.yaml.

A comment ``# -- text`` describes the key below it, and so belongs to every value of the table::

    uv run python helm/readme.py          rewrite the table
    uv run python helm/readme.py --check  exit code 1 if the README is not up to date
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

CHART: Final = Path(__file__).resolve().parent / "finetune-operator"
BEGIN: Final = "<!-- values: made by helm/readme.py from values.yaml -->"
END: Final = "<!-- end of values -->"
KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):")


class Value(NamedTuple):
    """A row of the table."""

    path: str
    default: Any
    description: str


class UndescribedError(ValueError):
    """A value without a comment; the message names it."""


def described(text: str) -> dict[str, str]:
    """Descriptions by path, from the ``# --`` comments of a values file."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            pending = [stripped.removeprefix("# --").strip()]
        elif stripped.startswith("#"):
            pending = [*pending, stripped.removeprefix("#").strip()] if pending else []
        elif match := KEY.match(line):
            indent = len(match["indent"])
            path = [*(part for part in path if part[0] < indent), (indent, match["key"])]
            if pending:
                found[".".join(key for _, key in path)] = " ".join(pending)
            pending = []
    return found


def values(text: str) -> Iterator[Value]:
    """Yield each value that a user sets as a whole: where a comment stands, nothing below it is described again.

    Raises:
        UndescribedError: a value has no comment.
    """
    comments = described(text)

    def walk(node: Any, path: str) -> Iterator[Value]:
        if path in comments:
            yield Value(path, node, comments[path])
        elif isinstance(node, dict) and node:
            for key, child in node.items():
                yield from walk(child, f"{path}.{key}" if path else key)
        else:
            raise UndescribedError(f"values.yaml: {path} has no description; put a comment `# -- text` above it")

    yield from walk(yaml.safe_load(text), "")


def table(text: str) -> str:
    """Markdown table of a values file."""
    rows = ["| value | default | description |", "|---|---|---|"]
    rows += [f"| `{value.path}` | `{json.dumps(value.default)}` | {value.description.replace('|', '&#124;')} |" for value in values(text)]
    return "\n".join(rows)


def rendered(chart: Path = CHART) -> str:
    """The README as it should be."""
    readme = (chart / "README.md").read_text(encoding="utf-8")
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table((chart / 'values.yaml').read_text(encoding='utf-8'))}\n{END}{tail}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the README is not up to date")
    check = parser.parse_args().check
    readme, wanted = CHART / "README.md", rendered()
    if readme.read_text(encoding="utf-8") == wanted:
        return 0
    if check:
        sys.stderr.write("helm/finetune-operator/README.md is not up to date: run `uv run python helm/readme.py`\n")
        return 1
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
