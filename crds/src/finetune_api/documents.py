"""Reading manifests the way kubectl does, and judging them without a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from finetune_api.constants import (
    API_VERSION,
    BASE_MODEL_KIND,
    BUDGET_KIND,
    CLUSTER_PRESET_KIND,
    DATASET_KIND,
    GPU_TYPE_KIND,
    KIND,
    METHOD_KIND,
    PRESET_KIND,
)
from finetune_api.models.partial import (
    validate_base_model,
    validate_budget,
    validate_dataset,
    validate_gpu_type,
    validate_job,
    validate_method,
    validate_preset,
)
from finetune_api.problems import Problem, SpecError
from finetune_api.rules import check_name
from finetune_api.rules.budget import check_budget_name
from finetune_api.rules.dataset import check_dataset_name


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it: 2e-4 is a number (PyYAML wants 2.0e-4), and a date stays a text."""


_FLOAT = re.compile(r"^[-+]?([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)([eE][-+]?[0-9]+)?$")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def load_documents(text: str) -> Iterator[Any]:
    """Every document of a manifest that is not empty. Raises :class:`yaml.YAMLError` for what is no YAML."""
    return (document for document in yaml.load_all(text, Loader=_Loader) if document is not None)


_NAMES: Mapping[Any, Callable[[str], list[Problem]]] = {KIND: check_name, DATASET_KIND: check_dataset_name, BUDGET_KIND: check_budget_name}
"""Kind -> what finds the name of its objects wrong."""
_JUDGES: Mapping[Any, Callable[[object], None]] = {
    KIND: validate_job,
    PRESET_KIND: validate_preset,
    CLUSTER_PRESET_KIND: validate_preset,
    METHOD_KIND: validate_method,
    BASE_MODEL_KIND: validate_base_model,
    DATASET_KIND: validate_dataset,
    GPU_TYPE_KIND: validate_gpu_type,
    BUDGET_KIND: validate_budget,
}
"""Kind -> what raises :class:`SpecError` for its spec."""


def validate_document(document: object) -> None:
    """Raise :class:`SpecError` with all that is wrong with an object of our API group.

    Other kinds are none of our business and refused too: the caller decides what it hands over.
    """
    if not isinstance(document, Mapping):
        raise SpecError([Problem("document", document, "should be an object with apiVersion, kind, metadata and spec")])
    kind, version = document.get("kind"), document.get("apiVersion")
    if version != API_VERSION or kind not in _JUDGES:
        raise SpecError([Problem("kind", kind, f"{version} {kind} is unknown; write apiVersion: {API_VERSION} and kind: {KIND}")])
    problems: list[Problem] = []
    metadata = document.get("metadata")
    if kind in _NAMES and isinstance(metadata, Mapping) and "name" in metadata:
        problems += _NAMES[kind](str(metadata["name"]))
    unknown = sorted(set(document) - {"apiVersion", "kind", "metadata", "spec", "status"})
    problems += [Problem(name, document[name], "unknown field; did you mean spec?") for name in unknown]
    try:
        _JUDGES[kind](document.get("spec"))
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(problems)
