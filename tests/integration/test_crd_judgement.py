"""The API server judges every kept document as the models do, and so do its rules on documents nobody thought of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from finetune_api.constants import API_VERSION, BASE_MODEL_KIND, DATASET_KIND, GPU_TYPE_KIND, PRESET_KIND
from finetune_api.documents import validate_document
from finetune_api.problems import SpecError
from finetune_api.resolve import unflatten
from finetune_api.rules import RULES
from finetune_api.rules.base_model import DEFAULT_RULES, ENTRY_RULES
from finetune_api.rules.dataset import DATASET_RULES
from finetune_api.rules.rule import Rule
from tests.support.apiserver import ApiServer
from tests.support.manifests import EXAMPLES, INVALID, SHIPPED, VALID, Accepted, Refused, accepted, job_of, refused
from tests.support.specs import base_model_leaves, dataset_leaves, gpu_type_leaves, job_leaves, preset_leaves

pytestmark = pytest.mark.integration

thorough = settings(max_examples=400)


@pytest.mark.parametrize("case", accepted(VALID + EXAMPLES + SHIPPED), ids=str)
def test_accepted(api: ApiServer, case: Accepted) -> None:
    assert api.judge(case.document) == ""


@pytest.mark.parametrize("case", refused(INVALID), ids=str)
def test_refused_with_the_expected_sentence(api: ApiServer, case: Refused) -> None:
    assert case.expect in api.judge(case.document)


@given(leaves=job_leaves(references=True))
@thorough
def test_rules_in_cel_and_in_python_agree_on_jobs(api: ApiServer, leaves: dict[str, Any]) -> None:
    document = job_of("drawn", leaves)
    _same_judgement(api.judge(document), document)


@given(leaves=preset_leaves())
@thorough
def test_rules_in_cel_and_in_python_agree_on_presets(api: ApiServer, leaves: dict[str, Any]) -> None:
    document = {"apiVersion": API_VERSION, "kind": PRESET_KIND, "metadata": {"name": "drawn"}, "spec": unflatten(leaves)}
    _same_judgement(api.judge(document), document)


@given(leaves=base_model_leaves())
@thorough
def test_rules_in_cel_and_in_python_agree_on_base_models(api: ApiServer, leaves: dict[str, Any]) -> None:
    document = {"apiVersion": API_VERSION, "kind": BASE_MODEL_KIND, "metadata": {"name": "drawn"}, "spec": unflatten(leaves)}
    _same_messages(api.judge(document), document, ENTRY_RULES + DEFAULT_RULES)


@given(leaves=dataset_leaves())
@thorough
def test_rules_in_cel_and_in_python_agree_on_datasets(api: ApiServer, leaves: dict[str, Any]) -> None:
    document = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": {"name": "drawn"}, "spec": unflatten(leaves)}
    _same_messages(api.judge(document), document, DATASET_RULES)


@given(leaves=gpu_type_leaves())
@thorough
def test_judgement_agrees_on_gpu_types(api: ApiServer, leaves: dict[str, Any]) -> None:
    """Patterns and rules: what one side takes the other takes too."""
    document = {"apiVersion": API_VERSION, "kind": GPU_TYPE_KIND, "metadata": {"name": "drawn"}, "spec": unflatten(leaves)}
    try:
        validate_document(document)
    except SpecError:
        assert api.judge(document) != ""
    else:
        assert api.judge(document) == ""


def _same_messages(message: str, document: dict[str, Any], rules: tuple[Rule, ...]) -> None:
    try:
        validate_document(document)
    except SpecError as error:
        ours = {problem.message for problem in error.problems}
        assert ours == {rule.message for rule in rules if f": {rule.message}" in message}
    else:
        assert message == ""


def _same_judgement(message: str, document: dict[str, Any]) -> None:
    try:
        validate_document(document)
    except SpecError as error:
        # A rule that explains itself on the very values says more in Python: the field stands for it on both sides.
        explained = {f"spec.{rule.path}" for rule in RULES if rule.explain}
        ours = {problem.path if problem.path in explained else problem.message for problem in error.problems}
        # Some messages are the ends of others; the server puts a colon before each.
        said = [rule for rule in RULES if f": {rule.message}" in message]
        theirs = {path if (path := f"spec.{rule.path}") in explained else rule.message for rule in said}
        assert ours == theirs
    else:
        assert message == ""
