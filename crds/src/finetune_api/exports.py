"""What a job asks for beyond its final weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.models.spec import FineTuneJobSpec


def exports(job: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of merged, gguf and push a resolved job (by dotted path) wants; merging a full training's result would change nothing."""
    wanted = {
        "merged": job["output.merge"] and job["adapter.type"] == "lora",
        "gguf": job["output.export.gguf.enabled"],
        "push": job["output.push.enabled"],
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def exports_of(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """The same of a resolved spec."""
    return exports(
        {
            "output.merge": spec.output.merge,
            "adapter.type": spec.adapter.type,
            "output.export.gguf.enabled": spec.output.export.gguf.enabled,
            "output.push.enabled": spec.output.push.enabled,
        }
    )
