"""What users may write, derived from the resolved models: the same names and bounds, but nothing required that has a default.

A field is required of the user only when the resolved job needs it and the table of defaults has nothing for it: ``model.uri`` and
``dataset.uri``. Absent means "not written".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from finetune_api.defaults import BASE, SCHEMA
from finetune_api.models.base import ApiModel, is_list, nested_model
from finetune_api.models.base_model import BaseModelSpec
from finetune_api.models.budget import BudgetSpec
from finetune_api.models.dataset import DatasetSpec
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.training_method import TrainingMethodSpec
from finetune_api.problems import Problem, SpecError, problems_of
from finetune_api.rules import check_job, check_preset
from finetune_api.rules.base_model import DEFAULTABLE, check_base_model
from finetune_api.rules.budget import check_budget
from finetune_api.rules.dataset import check_dataset
from finetune_api.rules.gpu_type import check_gpu_type
from finetune_api.rules.training_method import check_method


class InputModel(ApiModel):
    """Base of derived models. Strict, as the API server is: "2" is no number and 1 is no boolean."""

    model_config = ConfigDict(strict=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def prune_nulls(cls, written: object) -> object:
        """A null stands for "not written": the API server prunes it."""
        if not isinstance(written, Mapping):
            return written
        known = {info.alias for info in cls.model_fields.values()}
        return {name: value for name, value in written.items() if value is not None or name not in known}


JOB_ONLY = frozenset({"displayName", "presetRef", "limits", *(path.split(".")[0] for path in SCHEMA)})
"""Top-level fields that belong to one job; no preset may set them."""

Keep = Callable[[str], bool]
"""Whether the field at this path is part of the derived model."""
Required = Callable[[str, FieldInfo], bool]
"""Whether the user must write the field at this path, given that its parent is written."""


def has_default(path: str) -> bool:
    """Whether the table of defaults gives the field at ``path`` a value."""
    return path in BASE or path in SCHEMA


def needed_from_job(path: str, info: FieldInfo) -> bool:
    """A field of a job that nothing but the job can supply."""
    nested = nested_model(info.annotation)
    if not info.is_required() or has_default(path):
        return False
    if nested is None or is_list(info.annotation):
        return True
    return any(needed_from_job(f"{path}.{child.alias}", child) for child in nested.model_fields.values())


def needed_from_preset(path: str, info: FieldInfo) -> bool:
    """A field without which what the preset does write makes no sense, such as the name in a reference."""
    parent = path.rpartition(".")[0]
    return bool(parent) and parent not in ("model", "dataset") and needed_from_job(path, info)


def derive(model: type[ApiModel], suffix: str, required: Required, keep: Keep, prefix: str = "") -> type[InputModel]:
    """The input form of ``model``: same fields, bounds and descriptions, optional except where ``required`` says so."""
    hints = get_type_hints(model, include_extras=True)
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias}"
        if not keep(path):
            continue

        def nested(inner: type[ApiModel], path: str = path) -> type[InputModel]:
            return derive(inner, suffix, required, keep, f"{path}.")

        annotation = _annotated(_written(hints[name], nested), info.metadata)
        default = ... if required(path, info) else None
        fields[name] = (annotation, Field(default, description=info.description, json_schema_extra=info.json_schema_extra))
    derived = create_model(f"{model.__name__}{suffix}", __base__=InputModel, __doc__=model.__doc__, __module__=__name__, **fields)
    assert issubclass(derived, InputModel)
    return derived


def _written(annotation: Any, nested: Callable[[type[ApiModel]], type[InputModel]]) -> Any:
    """The type of a value that is there: without None, nested models in their input form."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        return _annotated(_written(inner, nested), metadata)
    if origin in (Union, UnionType):
        (present,) = (argument for argument in arguments if argument is not NoneType)
        return _written(present, nested)
    if origin is list:
        return list.__class_getitem__(_written(arguments[0], nested))
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return nested(annotation)
    return annotation


def _annotated(annotation: Any, metadata: Collection[Any]) -> Any:
    return Annotated[annotation, *metadata] if metadata else annotation


def _is_of_preset(path: str) -> bool:
    return path.split(".", maxsplit=1)[0] not in JOB_ONLY


def _is_default(path: str) -> bool:
    return path.startswith("defaults.")


def _is_of_base_model(path: str) -> bool:
    """All its own fields; of the jobs' those that a model has a say in, and the blocks they are in."""
    field = path.removeprefix("defaults.")
    return not _is_default(path) or any(leaf == field or leaf.startswith(f"{field}.") for leaf in DEFAULTABLE)


JobInput = derive(FineTuneJobSpec, "Input", needed_from_job, lambda _: True)
"""``spec`` of a FineTuneJob as users write it."""
PresetInput = derive(FineTuneJobSpec, "Preset", needed_from_preset, _is_of_preset)
"""``spec`` of a FineTunePreset or ClusterFineTunePreset."""
MethodInput = derive(TrainingMethodSpec, "Input", lambda _, info: info.is_required(), lambda _: True)
"""``spec`` of a TrainingMethod."""
BaseModelInput = derive(BaseModelSpec, "OfModel", lambda path, info: not _is_default(path) and info.is_required(), _is_of_base_model)
"""``spec`` of a BaseModel."""
DatasetInput = derive(DatasetSpec, "Input", lambda _, info: info.is_required(), lambda _: True)
"""``spec`` of a Dataset."""
GpuTypeInput = derive(GpuTypeSpec, "Input", lambda _, info: info.is_required(), lambda _: True)
"""``spec`` of a GpuType."""
BudgetInput = derive(BudgetSpec, "Input", lambda _, info: info.is_required(), lambda _: True)
"""``spec`` of a Budget."""


def schema_problems(model: type[ApiModel], spec: object, root: str = "spec") -> list[Problem]:
    """What a schema finds wrong with ``spec``; cross-field rules are :mod:`finetune_api.rules`' part."""
    try:
        model.model_validate(as_json(spec))
    except ValidationError as error:
        return problems_of(error, model, root)
    return []


def as_json(value: object) -> object:
    """The value as it arrives at the API server: JSON knows no difference between 2.0 and 2."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {key: as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case _:
            return value


def leaf_fields(model: type[ApiModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of ``model`` that is no object itself, with its path."""
    for info in model.model_fields.values():
        path = f"{prefix}{info.alias}"
        nested = nested_model(info.annotation)
        if nested is None or is_list(info.annotation):
            yield path, info
        else:
            yield from leaf_fields(nested, f"{path}.")


def validate_job(spec: object, *, has_run: bool = False) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a FineTuneJob: schema first, then rules between fields."""
    _validate(JobInput, spec, partial(check_job, has_run=has_run))


def validate_preset(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a FineTunePreset or ClusterFineTunePreset."""
    _validate(PresetInput, spec, check_preset)


def validate_method(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a TrainingMethod."""
    _validate(MethodInput, spec, check_method)


def validate_base_model(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a BaseModel."""
    _validate(BaseModelInput, spec, check_base_model)


def validate_dataset(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a Dataset."""
    _validate(DatasetInput, spec, check_dataset)


def validate_gpu_type(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a GpuType."""
    _validate(GpuTypeInput, spec, check_gpu_type)


def validate_budget(spec: object) -> None:
    """Raise :class:`SpecError` with everything that is wrong with the spec of a Budget."""
    _validate(BudgetInput, spec, check_budget)


def _validate(model: type[ApiModel], spec: object, check: Callable[[Mapping[str, Any]], list[Problem]]) -> None:
    problems = schema_problems(model, spec)
    if not problems:
        assert isinstance(spec, Mapping)
        problems = check(spec)
    if problems:
        raise SpecError(problems)
