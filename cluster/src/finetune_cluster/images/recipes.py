"""What the project's images are made of, and the name that follows from it."""

import enum
from dataclasses import dataclass
from pathlib import Path

from finetune_cluster.hashing import digest_of, files_below

_WORKSPACE = (
    "pyproject.toml",
    "uv.lock",
    "cli/pyproject.toml",
    "cluster/pyproject.toml",
    "monitoring/pyproject.toml",
    "operator/pyproject.toml",
    "trainer-image/pyproject.toml",
)
"""uv reads the whole workspace to find the locked requirements of one member."""


class Base(enum.StrEnum):
    """The argument by which a recipe takes its base image; the default of each is a public image."""

    PYTHON = "BASE_IMAGE"
    GO = "GO_IMAGE"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made; paths are relative to the root of the repository."""

    name: str
    containerfile: str
    context: str
    inputs: tuple[str, ...]
    base: Base
    time_note: str

    def tag(self, root: Path, base_image: str) -> str:
        """Name the image after its inputs and the base image that replaces the public one (empty if none does)."""
        return digest_of([self.name, base_image], files_below(root, [self.containerfile, *self.inputs]))


TRAINER = Recipe(
    name="trainer",
    containerfile="trainer-image/Containerfile",
    context=".",
    inputs=(".containerignore", *_WORKSPACE, "crds/pyproject.toml", "crds/src", "trainer-image/src"),
    base=Base.PYTHON,
    time_note="about 6 min the first time, 10 s for a change of code",
)
OPERATOR = Recipe(
    name="operator",
    containerfile="operator/Containerfile",
    context=".",
    inputs=(".containerignore", *_WORKSPACE, "crds/pyproject.toml", "crds/src", "operator/src"),
    base=Base.PYTHON,
    time_note="about 1 min the first time",
)
MINIO = Recipe(
    name="minio",
    containerfile="cluster/images/minio.Containerfile",
    context="cluster/go/minio",
    inputs=("cluster/go/minio",),
    base=Base.GO,
    time_note="about 3 min the first time, 10 s where the program was built",
)
RECIPES = {recipe.name: recipe for recipe in (OPERATOR, TRAINER, MINIO)}
