import shutil
from pathlib import Path

import pytest

from finetune_cluster.images.recipes import MINIO, OPERATOR, RECIPES, TRAINER, Recipe
from finetune_cluster.repository import repository_root


def copied(recipe: Recipe) -> list[str]:
    """Return what the instructions of a Containerfile copy out of its context."""
    instructions = [line.split() for line in (repository_root() / recipe.containerfile).read_text().splitlines()]
    return [source for words in instructions if words[:1] == ["COPY"] and not words[1].startswith("--") for source in words[1:-1]]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of everything the images are made of."""
    root = repository_root()
    for recipe in RECIPES.values():
        for name in (recipe.containerfile, *recipe.inputs):
            source, target = root / name, tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
    return tmp_path


def tags(root: Path) -> dict[str, str]:
    return {name: recipe.tag(root, "base") for name, recipe in RECIPES.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name, tag in before.items() if after[name] != tag}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("trainer-image/src/finetune_trainer/__init__.py", {"trainer"}),
        ("operator/src/finetune_operator/__init__.py", {"operator"}),
        ("crds/src/finetune_api/__init__.py", {"trainer", "operator"}),
        ("uv.lock", {"trainer", "operator"}),
        ("cluster/go/minio/go.mod", {"minio"}),
        ("operator/Containerfile", {"operator"}),
    ],
)
def test_an_image_gets_a_new_name_when_one_of_its_inputs_changes_and_only_then(clone: Path, path: str, expected: set[str]) -> None:
    before = tags(clone)
    with (clone / path).open("a") as file:
        file.write("# changed\n")
    assert changed(before, tags(clone)) == expected


@pytest.mark.parametrize("recipe", [TRAINER, OPERATOR, MINIO], ids=lambda recipe: recipe.name)
def test_another_base_image_makes_another_image(clone: Path, recipe: Recipe) -> None:
    assert recipe.tag(clone, "base") != recipe.tag(clone, "")


@pytest.mark.parametrize("recipe", [TRAINER, OPERATOR, MINIO], ids=lambda recipe: recipe.name)
def test_every_file_a_containerfile_copies_is_an_input(recipe: Recipe) -> None:
    root = repository_root()
    inputs = [(root / name).resolve() for name in recipe.inputs]
    for source in copied(recipe):
        path = (root / recipe.context / source).resolve()
        assert any(path.is_relative_to(known) or known.is_relative_to(path) for known in inputs), source


@pytest.mark.parametrize("recipe", [TRAINER, OPERATOR], ids=lambda recipe: recipe.name)
def test_every_workspace_file_a_containerfile_copies_is_let_into_the_context_by_its_name(recipe: Recipe) -> None:
    """Docker finds none that only a wildcard lets in: it does not look into a folder that no such name begins with."""
    let_in = {line.removeprefix("!") for line in (repository_root() / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    files = {file for source in copied(recipe) for file in recipe.inputs if file.startswith(source.rstrip("/"))}
    assert files <= let_in
