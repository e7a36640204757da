"""Manifests on disk: what kubectl would apply, read and judged by the API's own rules."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_api.auto import is_auto, tune
from finetune_api.base_models import SHIPPED_BASE_MODELS
from finetune_api.catalogue import gpu_type_problems, ineligible, unknown_gpu_type
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
from finetune_api.contract.custom import method_problems
from finetune_api.contract.run_config import CustomMethod
from finetune_api.datasets import rows_of
from finetune_api.documents import load_documents, validate_document
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_api.models.dataset import DatasetStatus
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.training_method import TrainingMethodSpec
from finetune_api.presets import SHIPPED
from finetune_api.problems import Problem, SpecError
from finetune_api.resolve import Resolution, chosen_dataset, chosen_gpu_type, chosen_method, chosen_model, resolve
from finetune_api.rules import check_resolved
from finetune_cli.errors import CliError

STANDARD_INPUT = Path("-")
PRESET_KINDS = frozenset({PRESET_KIND, CLUSTER_PRESET_KIND, METHOD_KIND, BASE_MODEL_KIND, DATASET_KIND, GPU_TYPE_KIND})
"""Kinds of objects that jobs name."""


@dataclass(frozen=True, slots=True)
class Document:
    """An object of our API group in a manifest."""

    source: str
    """File it comes from, for messages."""
    raw: Mapping[str, Any]
    """As written; :func:`problems_of_document` tells whether it is what it should be."""

    @property
    def kind(self) -> str:
        """Kind of the object."""
        return str(self.raw.get("kind", ""))

    @property
    def name(self) -> str:
        """Its name."""
        return str((self.raw.get("metadata") or {}).get("name", ""))

    @property
    def spec(self) -> Any:
        """Its spec."""
        return self.raw.get("spec")

    def __str__(self) -> str:
        return f"{self.source}: {self.kind} {self.name}"


Presets = Mapping[tuple[str, str], Mapping[str, Any]]
"""(kind, name) -> spec of a preset, TrainingMethod, BaseModel, Dataset or GpuType that jobs may name."""


def read_documents(path: Path) -> list[Document]:
    """All objects of our API group in a file (``-``: standard input); others are passed over.

    Raises:
        CliError: the file cannot be read, is no YAML, or has none.
    """
    source = "standard input" if path == STANDARD_INPUT else str(path)
    try:
        text = sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
        objects = [found for found in load_documents(text) if isinstance(found, dict)]
    except OSError as error:
        raise CliError(f"{source} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise CliError(f"{source} is no YAML: {error}") from error
    documents = [Document(source, found) for found in objects if found.get("apiVersion") == API_VERSION]
    if not documents:
        raise CliError(f"{source} has no object of {API_VERSION}")
    return documents


def read_job(path: Path) -> Document:
    """The one FineTuneJob in a file.

    Raises:
        CliError: there is none, or more than one.
    """
    return the_job(read_documents(path), path)


def the_job(documents: Iterable[Document], path: Path) -> Document:
    """The one FineTuneJob among the documents of a file, likewise."""
    jobs = [document for document in documents if document.kind == KIND]
    if len(jobs) != 1:
        names = ", ".join(job.name for job in jobs)
        raise CliError(f"{path} has {len(jobs)} FineTuneJobs{f' ({names})' if names else ''}; this command takes a file with one")
    return jobs[0]


def read_presets(paths: Iterable[Path]) -> Presets:
    """The shipped presets, BaseModels and GpuTypes, and before them those in files, and TrainingMethods and Datasets."""
    return presets_of(read_named(paths))


def read_named(paths: Iterable[Path]) -> list[Document]:
    """What jobs may name, of files.

    Raises:
        CliError: a file has nothing of the kind, or something that is not valid.
    """
    named: list[Document] = []
    for path in paths:
        found = [document for document in read_documents(path) if document.kind in PRESET_KINDS]
        if not found:
            raise CliError(f"{path} has no preset, no {METHOD_KIND}, no {BASE_MODEL_KIND}, no {DATASET_KIND} and no {GPU_TYPE_KIND}")
        for document in found:
            raise_problems(document, problems_of_document(document))
        named += found
    return named


def presets_of(documents: Iterable[Document]) -> Presets:
    """What is shipped, and before it what the documents are."""
    presets = {(CLUSTER_PRESET_KIND, name): preset.spec for name, preset in SHIPPED.items()}
    presets |= {(BASE_MODEL_KIND, name): spec for name, spec in SHIPPED_BASE_MODELS.items()}
    presets |= {(GPU_TYPE_KIND, name): spec for name, spec in SHIPPED_GPU_TYPES.items()}
    return presets | {(document.kind, document.name): document.spec for document in documents}


def find_dataset_status(name: str, documents: Iterable[Document]) -> DatasetStatus | None:
    """What a look at a Dataset found, from the last document of this name; None where the Dataset has not been looked at.

    Raises:
        CliError: the status is none that this client understands.
    """
    raw = [document.raw.get("status") for document in documents if (document.kind, document.name) == (DATASET_KIND, name)]
    if not raw or not raw[-1]:
        return None
    try:
        return DatasetStatus.model_validate(raw[-1])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise CliError(
            f"{DATASET_KIND} {name}: status.{where}: {problem['msg']}", advice="Leave the status out, or fetch it anew."
        ) from error


def named_beside(documents: Iterable[Document]) -> Presets:
    """What jobs may name among some documents; those that are not valid are left out."""
    return {(each.kind, each.name): each.spec for each in documents if each.kind in PRESET_KINDS and not problems_of_document(each)}


def problems_of_document(document: Document) -> Sequence[Problem]:
    """What is wrong with a document by itself, by the rules the API server has too."""
    try:
        validate_document(document.raw)
    except SpecError as error:
        return error.problems
    return []


def find_preset(document: Document, presets: Presets) -> Mapping[str, Any] | None:
    """The preset a job refers to; None when it refers to none. Raises as :func:`_preset_key`."""
    key = _preset_key(document, presets)
    return presets[key] if key is not None else None


def _preset_key(document: Document, presets: Presets) -> tuple[str, str] | None:
    """Kind and name of the preset a job refers to, by the operator's rule: one of its namespace, else one of the cluster.

    Raises:
        CliError: it refers to one that is not known here.
    """
    reference = document.spec.get("presetRef")
    if reference is None:
        return None
    kinds = [reference["kind"]] if "kind" in reference else [PRESET_KIND, CLUSTER_PRESET_KIND]
    for kind in kinds:
        if (kind, reference["name"]) in presets:
            return kind, reference["name"]
    known = ", ".join(sorted(name for kind, name in presets if kind in kinds))
    raise CliError(
        f"{document}: spec.presetRef.name: there is no preset {reference['name']}; known: {known}",
        advice="Name its manifest with --preset-file.",
    )


def find_base_model(document: Document, presets: Presets) -> tuple[str, Mapping[str, Any]] | None:
    """Name and spec of the BaseModel a job, or its preset, chooses; None when it chooses none.

    Raises:
        CliError: it chooses one that is not known here.
    """
    name = chosen_model(document.spec, find_preset(document, presets))
    problem = f"{document}: spec.model.uri: ref:{name}: there is no {BASE_MODEL_KIND} {name}"
    advice = "Name its manifest with --base-model-file; a cluster's own come from: kubectl get basemodels -o yaml."
    return _find(BASE_MODEL_KIND, name, presets, problem, advice)


def find_dataset(document: Document, presets: Presets) -> tuple[str, Mapping[str, Any]] | None:
    """Name and spec of the Dataset a job chooses; None when it names an address.

    Raises:
        CliError: it chooses one that is not known here.
    """
    name = chosen_dataset(document.spec, find_preset(document, presets))
    problem = f"{document}: spec.dataset.uri: ref:{name}: the {DATASET_KIND} {name} is not known here"
    advice = f"Write it beside the job, or name its manifest with --dataset-file: kubectl get dataset {name} -o yaml prints it."
    return _find(DATASET_KIND, name, presets, problem, advice)


def find_gpu_type(document: Document, presets: Presets) -> tuple[str, Mapping[str, Any]] | None:
    """Name and spec of the GpuType a job, or its preset, chooses; None when it chooses none.

    Raises:
        CliError: it chooses one that is not known here.
    """
    name = chosen_gpu_type(document.spec, find_preset(document, presets))
    problem = f"{document}: {unknown_gpu_type(name or '', [known for kind, known in presets if kind == GPU_TYPE_KIND])}"
    advice = "Name its manifest with --gpu-type-file; a cluster's own come from: kubectl get gputypes -o yaml."
    return _find(GPU_TYPE_KIND, name, presets, problem, advice)


def _find(kind: str, name: str | None, presets: Presets, problem: str, advice: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and spec of what is named, if anything is. Raises :class:`CliError` with ``problem`` when it is not among what is known."""
    if name is None:
        return None
    if (kind, name) not in presets:
        known = ", ".join(sorted(known for each, known in presets if each == kind)) or "none"
        raise CliError(f"{problem}; known: {known}", advice=advice)
    return name, presets[kind, name]


def resolve_document(document: Document, presets: Presets, beside: Iterable[Document] = ()) -> Resolution:
    """Complete a job's spec as the operator does; ``beside``: documents among which the Dataset it names may have a status.

    Raises:
        CliError: with every problem of the job, or of the job and what it names together.
    """
    raise_problems(document, problems_of_document(document))
    resolution, problems = judge_document(document, presets, beside)
    raise_problems(document, problems)
    return resolution


def judge_document(document: Document, presets: Presets, beside: Iterable[Document] = ()) -> tuple[Resolution, Sequence[Problem]]:
    """The completed spec of a job that is valid by itself, and what is wrong with the job and what it names together.

    A TrainingMethod that is not known here is not judged: it is the cluster's.
    """
    preset = find_preset(document, presets)
    name = chosen_method(document.spec, preset)
    method = presets.get((METHOD_KIND, name)) if name is not None else None
    own = {"resources": method.get("resources") or {}} if method is not None else None
    chosen = find_base_model(document, presets)
    dataset = find_dataset(document, presets)
    gpu_type = find_gpu_type(document, presets)
    specs = [found[1] if found is not None else None for found in (chosen, dataset, gpu_type)]
    resolution = resolve(document.spec, preset, own, *specs)
    if is_auto(*(_preset_key(document, presets) or ("", ""))):
        status = find_dataset_status(dataset[0], beside) if dataset is not None else None
        tuning = tune(resolution, rows_of(resolution.spec, status))
        resolution = resolve(document.spec, tuning.over(preset or {}), own, *specs)._replace(reasons=tuning.reasons, notes=tuning.notes)
    problems = check_resolved(resolution)
    if gpu_type is not None:
        problems += gpu_type_problems(gpu_type[0], GpuTypeSpec.model_validate(gpu_type[1]), resolution.spec)
    if chosen is not None and (refused := ineligible(*chosen)) is not None:
        problems.append(refused)
    if method is not None:
        custom = CustomMethod(name=str(name), spec=TrainingMethodSpec.model_validate(method))
        problems += method_problems(custom, resolution.spec)
    return resolution, problems


def raise_problems(document: Document, problems: Sequence[Problem]) -> None:
    """Turn problems into one error with a line for each."""
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise CliError(f"{document} is not valid:\n{lines}")
