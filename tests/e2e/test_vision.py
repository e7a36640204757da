"""Vision-language jobs: images in an archive, from the store to a result; and archives that are refused before a trainer starts."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.platform import BUCKET, ROOT, Platform

pytestmark = pytest.mark.e2e

MODEL: Final = "models/tiny-vlm"
ROWS: Final = {"secretRef": {"name": "finetune-storage"}, "region": "us-east-1", "format": "vlm-zip", "maxSamples": 0}


@pytest.fixture(scope="module")
def sight(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tiny vision-language model, an archive for it, and one without rows."""
    directory = tmp_path_factory.mktemp("sight")
    model, rows, images = directory / "model", directory / "shapes.zip", directory / "images.zip"
    subprocess.run([sys.executable, ROOT / "examples/tiny_vlm.py", model, "--images", rows, "--rows", "24"], check=True)
    with zipfile.ZipFile(images, "w") as archive:
        archive.writestr("images/a.png", b"")
    for file in sorted(model.iterdir()):
        platform.store.fput_object(BUCKET, f"{MODEL}/{file.name}", str(file))
    for file in (rows, images):
        platform.store.fput_object(BUCKET, f"data/{file.name}", str(file))


def spec_of(archive: str, **model: Any) -> dict[str, Any]:
    """A job on the tiny vision-language model."""
    return {
        "model": {"uri": f"s3://{BUCKET}/{MODEL}", **model},
        "dataset": {"uri": f"s3://{BUCKET}/data/{Path(archive).name}", **ROWS},
        "training": {"gradAccumSteps": 1, "maxSteps": 4},
    }


@pytest.mark.usefixtures("sight")
@pytest.mark.parametrize(("kind", "parts"), [("LLM", "language"), ("VLM", "language, vision")])
def test_what_is_trained(run_job: JobFactory, kind: str, parts: str) -> None:
    """B-11, E-07, AC-34: status says which parts were trained; the result is in the store."""
    status = run_job(f"sees-{kind.lower()}", spec_of("shapes.zip", type=kind)).wait_phase("Succeeded")
    assert status["artifacts"]["finalUri"].endswith("/final")
    assert (status["facts"]["modelType"], status["facts"]["trainableComponents"]) == (kind, parts)
    assert int(status["facts"]["images"]) > 0


@pytest.mark.usefixtures("sight")
def test_an_archive_without_rows(run_job: JobFactory) -> None:
    """AC-37."""
    status = run_job("no-rows", spec_of("images.zip")).wait_phase("Failed")
    assert status["failure"]["class"] == "DataError"
    assert "images.zip: there is no train.jsonl at its root" in status["failure"]["message"]
