"""Docker builds the images from the recipes that buildah builds them from elsewhere. Skipped where no Docker engine answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finetune_cluster.images.docker_store import DockerImages
from finetune_cluster.images.recipes import OPERATOR
from finetune_cluster.shell import run, succeeds

PREFIX = "localhost/finetune-test"


@pytest.fixture
def delivered() -> Iterator[list[str]]:
    """Names of images that were to be brought to a cluster; they are removed from Docker afterwards."""
    if not succeeds(["docker", "info"]):
        pytest.skip("no Docker engine answers")
    names: list[str] = []
    yield names
    run(["docker", "image", "rm", "--force", *names])


def test_docker_builds_an_image_that_starts_and_does_not_build_it_twice(delivered: list[str]) -> None:
    """A user with Docker takes this path first (A-19): recipe, context and caches suit BuildKit as they suit buildah."""
    images = DockerImages(PREFIX, delivered.append)
    reference = images.ensure(OPERATOR)
    assert "Settings: environment" in run(["docker", "run", "--rm", reference, "--help"])
    made = run(["docker", "image", "inspect", "--format", "{{.Id}} {{.Created}}", reference])
    assert images.ensure(OPERATOR) == reference
    assert run(["docker", "image", "inspect", "--format", "{{.Id}} {{.Created}}", reference]) == made
    assert delivered == [reference, reference]
