#!/usr/bin/env python3
"""Write argocd-cm-patch.yaml from the Lua files, which stand in Argo CD's own layout.

The patch gives Argo CD the health and the actions of a FineTuneJob, whether the ConfigMap argocd-cm is patched with it or its keys are put
into the values of Argo CD's chart (``configs.cm``)::

    uv run python deploy/argocd/render.py          rewrite the file
    uv run python deploy/argocd/render.py --check  exit code 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
LUA: Final = HERE / "finetune.dev" / "FineTuneJob"
PATCH: Final = HERE / "argocd-cm-patch.yaml"
SUFFIX: Final = "finetune.dev_FineTuneJob"
HEAD: Final = "# Made by deploy/argocd/render.py from the Lua files beside it; do not edit.\n"


class Block(str):
    """A text written as a literal block."""

    __slots__ = ()


class Dumper(yaml.SafeDumper):
    """Writes :class:`Block` as ``|``."""


Dumper.add_representer(Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def script(*parts: str) -> Block:
    """A Lua file."""
    return Block(LUA.joinpath(*parts).read_text(encoding="utf-8"))


def dumped(document: Any) -> str:
    """YAML with keys in the order given."""
    return yaml.dump(document, Dumper=Dumper, sort_keys=False, width=10_000)


def rendered() -> str:
    """The patch as it should be."""
    names = sorted(folder.name for folder in (LUA / "actions").iterdir() if (folder / "action.lua").is_file())
    actions = {
        "discovery.lua": script("actions", "discovery.lua"),
        "definitions": [{"name": name, "action.lua": script("actions", name, "action.lua")} for name in names],
    }
    data = {
        f"resource.customizations.health.{SUFFIX}": script("health.lua"),
        f"resource.customizations.actions.{SUFFIX}": Block(dumped(actions)),
    }
    return HEAD + dumped({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": data})


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the file is not up to date")
    check = parser.parse_args().check
    wanted = rendered()
    if PATCH.is_file() and PATCH.read_text(encoding="utf-8") == wanted:
        return 0
    if check:
        sys.stderr.write("deploy/argocd/argocd-cm-patch.yaml is not up to date: run `uv run python deploy/argocd/render.py`\n")
        return 1
    PATCH.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
