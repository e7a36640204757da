"""Manifests kept as test data, and small documents made from dotted paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finetune_api.constants import (
    API_VERSION,
    BASE_MODEL_KIND,
    CLUSTER_PRESET_KIND,
    DATASET_KIND,
    GPU_TYPE_KIND,
    KIND,
    METHOD_KIND,
    PRESET_KIND,
)
from finetune_api.documents import load_documents
from finetune_api.resolve import unflatten

ROOT = Path(__file__).parents[2]
VALID = sorted((ROOT / "tests/data/jobs/valid").glob("*.yaml"))
INVALID = sorted((ROOT / "tests/data/jobs/invalid").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SHIPPED = sorted(file for folder in ("presets", "basemodels", "gputypes") for file in (ROOT / "crds" / folder).glob("*.yaml"))
_EXPECT = "# expect: "
_OURS = (KIND, PRESET_KIND, CLUSTER_PRESET_KIND, METHOD_KIND, BASE_MODEL_KIND, DATASET_KIND, GPU_TYPE_KIND)

REQUIRED = {"model.uri": "hf://org/model", "dataset.uri": "hf://org/data"}
"""What every job must say, by dotted path."""


class Accepted(NamedTuple):
    """A document that must be accepted."""

    file: Path
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.file.stem}/{self.document['metadata']['name']}"


class Refused(NamedTuple):
    """A document that must be refused with a message that contains ``expect``."""

    file: Path
    expect: str
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return self.file.stem


def accepted(files: list[Path]) -> list[Accepted]:
    """Every document of our kinds in ``files``."""
    documents = ((file, document) for file in files for document in load_documents(file.read_text(encoding="utf-8")))
    return [Accepted(file, document) for file, document in documents if document["kind"] in _OURS]


def refused(files: list[Path]) -> list[Refused]:
    """Every file with the expectation in its first line."""
    return [_refused(file) for file in files]


def _refused(file: Path) -> Refused:
    text = file.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    assert first.startswith(_EXPECT), f"{file} must begin with {_EXPECT}<part of the message>"
    (document,) = load_documents(text)
    return Refused(file, first.removeprefix(_EXPECT), document)


def spec_of(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A job's spec from dotted paths; model and dataset are there unless given."""
    return unflatten({**REQUIRED, **leaves})


def job_of(name: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """A FineTuneJob from dotted paths."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec_of(leaves)}
