"""Base of contract documents: camelCase JSON, unknown fields ignored (the other side may be one version ahead)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ContractModel(BaseModel):
    """An immutable JSON document both sides read."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True)

    def to_json(self) -> str:
        """Compact camelCase JSON without unset optional values."""
        return self.model_dump_json(by_alias=True, exclude_none=True)
