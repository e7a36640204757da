"""What README and docs tell a user to type is understood, and the tutorial holds together from its first command to its last."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import typer
from typer.core import TyperGroup

from finetune_cli.__main__ import app
from finetune_cli.demo.scene import Scene
from finetune_cli.manifest import read_job, read_presets, resolve_document
from finetune_cluster.cli import app as cluster_app

ROOT = Path(__file__).parents[3]
TUTORIAL = ROOT / "docs" / "tutorial.md"
Command: TypeAlias = Any
"""typer's own kind of click commands, which has no public name."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLUGIN = typer.main.get_command(app)
CLUSTER = typer.main.get_command(cluster_app)


def blocks(page: Path, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of each command after a prompt, without its comment."""
    lines = [line for block in blocks(page, "console") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def parse(command: Command, words: list[str]) -> None:
    """Understand a command line, down to the options of its subcommands; nothing is run."""
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}; there are {', '.join(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name or "", [*words])


def invocations() -> Iterator[tuple[str, Command, list[str]]]:
    for page in PAGES:
        for words in commands(page):
            if words[:2] == ["kubectl", "finetune"]:
                yield page.name, PLUGIN, words[2:]
            elif words and words[0].endswith("finetune-cluster"):
                yield page.name, CLUSTER, words[1:]


@pytest.mark.parametrize(
    ("command", "words"), [pytest.param(*found[1:], id=f"{found[0]}: {shlex.join(found[2])}") for found in invocations()]
)
def test_a_documented_command_is_understood(command: Command, words: list[str]) -> None:
    parse(command, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_documented_make_target_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for words in commands(page) if words and words[0] == "make" for word in words[1:] if "=" not in word}
    assert named <= targets


def test_the_tutorials_job_is_valid_and_reads_what_the_tutorial_made(tmp_path: Path) -> None:
    (manifest,) = blocks(TUTORIAL, "yaml")
    path = tmp_path / "my-first.yaml"
    path.write_text(manifest)
    spec = resolve_document(read_job(path), read_presets([])).spec
    demo = Scene.of(ROOT)
    assert spec.model.uri == demo.spec.model.uri, "`make demo-model` uploads the demo's"
    assert spec.model.secret_ref == demo.spec.model.secret_ref
    (create,) = [words for words in commands(TUTORIAL) if words[:3] == ["kubectl", "create", "configmap"]]
    key, _, source = create[4].removeprefix("--from-file=").partition("=")
    assert spec.dataset.uri == f"configmap://{create[3]}/{key}"
    assert (ROOT / source).is_file()


def test_the_tutorial_speaks_of_one_job_and_leaves_the_demos_alone(tmp_path: Path) -> None:
    """It can be followed after `make demo`, whose job and ConfigMap are still there."""
    spoken = " ".join(word for words in commands(TUTORIAL) for word in words)
    demo = Scene.of(ROOT)
    assert demo.document.name not in spoken
    assert not re.search(rf"\bconfigmap {demo.config_map[0]}\b", spoken)
    assert set(re.findall(r"ftj[/ ]([a-z][a-z-]+)", spoken)) <= {"my-first", "kubectl"}
