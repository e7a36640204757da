"""Manifests are read as kubectl reads them, and judged whole."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.documents import load_documents, validate_document
from finetune_api.problems import SpecError
from tests.support.manifests import job_of


def read(value: str) -> Any:
    """One value out of YAML."""
    (document,) = load_documents(f"value: {value}")
    return document["value"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E5", 1e5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("-1", -1),
        ("512", 512),
        ("2026-11-21", "2026-11-21"),
        ("4Gi", "4Gi"),
        ("true", True),
        ("'2'", "2"),
        ("1e5x", "1e5x"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    """PyYAML alone would read 2e-4 as a text and a date as a date."""
    assert read(text) == value
    assert type(read(text)) is type(value)


def test_empty_documents_are_left_out() -> None:
    assert list(load_documents("---\na: 1\n---\n---\n# only a comment\n---\nb: 2\n")) == [{"a": 1}, {"b": 2}]


def test_a_whole_job_is_accepted() -> None:
    validate_document(job_of("sft-20241201-143052", {}))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"metadata": {"name": "7b"}}, "metadata.name"),
        ({"kind": "Job"}, "kind"),
        ({"apiVersion": "finetune.dev/v1"}, "kind"),
        ({"specs": {}}, "specs"),
        ({"spec": None}, "spec"),
    ],
)
def test_what_stands_around_the_spec_is_judged_too(change: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        validate_document({**job_of("fine", {}), **change})
    assert path in {problem.path for problem in caught.value.problems}


@pytest.mark.parametrize("document", ["text", 3, [], None])
def test_a_document_is_an_object(document: object) -> None:
    with pytest.raises(SpecError, match="should be an object"):
        validate_document(document)


def test_generated_names_are_left_to_the_api_server() -> None:
    validate_document({**job_of("x", {}), "metadata": {"generateName": "sft-"}})


def test_presets_may_have_names_jobs_may_not() -> None:
    preset = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTunePreset", "metadata": {"name": "7b.chat"}, "spec": {}}
    validate_document(preset)
