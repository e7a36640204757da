"""What every API model has in common, and the metadata a field carries beside its type.

The models describe a *resolved* job: every field that always has a value is not optional here. What a user may write (nothing but model and
dataset required, no defaults) is derived from them by :mod:`finetune_api.models.partial`, so that there is one source only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of everything a user writes: unknown fields are refused, names are camelCase on the wire, values do not change."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


class ResumeClass(StrEnum):
    """What an edit of a field means for a job that has already run (design: resume classes)."""

    FREE = "free"
    """Takes effect at the next start; changes nothing of what was learnt."""
    SCHEDULE = "schedule"
    """Applied from the resumed step on; said in status."""
    IDENTITY = "identity"
    """Makes it another training: refused once a run exists."""


class Tier(StrEnum):
    """How prominent a parameter is (A-13): most users stop at ``general``."""

    GENERAL = "general"
    OPTIONAL = "optional"
    ADVANCED = "advanced"


def api_field(
    *,
    resume: ResumeClass = ResumeClass.FREE,
    tier: Tier = Tier.OPTIONAL,
    unit: str | None = None,
    recommended: str | None = None,
    schema_default: object = None,
    requirement: str | None = None,
    **constraints: Any,
) -> Any:
    """Declare a field: its bounds (as for :func:`pydantic.Field`) and what the schema, the docs and the resume rules must know of it.

    ``schema_default`` is for the few fields that no preset may set; it is the only default the API server ever writes. ``requirement``
    names the requirements the field answers, for the reference.
    """
    extra: dict[str, Any] = {"x-resume": resume.value, "x-tier": tier.value}
    if unit is not None:
        extra["x-unit"] = unit
    if recommended is not None:
        extra["x-recommended"] = recommended
    if schema_default is not None:
        extra["x-schema-default"] = schema_default
    if requirement is not None:
        extra["x-requirement"] = requirement
    return Field(json_schema_extra=extra, **constraints)


NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=NAME_PATTERN)]
"""The name of an object in the job's own namespace."""
Quantity = Annotated[str, StringConstraints(max_length=32, pattern=QUANTITY_PATTERN)]
"""A Kubernetes quantity such as 500m, 4, 16Gi."""


class SecretRef(ApiModel):
    """A Secret in the job's namespace."""

    name: Name = api_field()
    """Name of the Secret."""


def nested_model(annotation: object) -> type[ApiModel] | None:
    """The model inside an annotation such as ``Model``, ``Model | None`` or ``list[Model]``."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, ApiModel):
            return candidate
    return None


def is_list(annotation: object) -> bool:
    """Whether an annotation is a list, possibly an optional one. Lists are merged and compared as a whole."""
    return get_origin(annotation) is list or any(get_origin(argument) is list for argument in get_args(annotation))
