"""Rules for GpuTypes: those of a job's tolerations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.problems import Problem
from finetune_api.resolve import flatten
from finetune_api.rules.rule import Rule
from finetune_api.rules.running import toleration_rules
from finetune_api.written import Written

GPU_TYPE_RULES: tuple[Rule, ...] = toleration_rules("tolerations")


def check_gpu_type(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that the spec of a GpuType breaks. The spec must fit its schema."""
    written = Written(flatten(spec))
    return [Problem(f"spec.{rule.path}", written[rule.path], rule.say(written)) for rule in GPU_TYPE_RULES if not rule.holds(written)]
