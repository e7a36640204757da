"""Rules between fields, as data: each one as CEL for the API server and as a predicate in Python, so that both judge alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.arguments import argument_problems
from finetune_api.constants import MAX_JOB_NAME
from finetune_api.problems import Problem
from finetune_api.resolve import Resolution, flatten
from finetune_api.rules.custom import CUSTOM_RULES
from finetune_api.rules.learning import LEARNING_RULES
from finetune_api.rules.methods import METHOD_RULES
from finetune_api.rules.outputs import OUTPUT_RULES
from finetune_api.rules.rule import Rule
from finetune_api.rules.running import CANCELLED_IS_FINAL, JOB_NAME, JOB_NAME_PATTERN, RUNNING_RULES, SchemaRule
from finetune_api.rules.scheduling import SCHEDULING_RULES
from finetune_api.rules.sources import SOURCE_RULES, limit_problems
from finetune_api.rules.streams import STREAM_RULES
from finetune_api.rules.vision import VISION_RULES
from finetune_api.written import Written

__all__ = [
    "CANCELLED_IS_FINAL",
    "JOB_NAME",
    "RULES",
    "Rule",
    "SchemaRule",
    "check_job",
    "check_name",
    "check_preset",
    "check_resolved",
]

RULES: tuple[Rule, ...] = (
    SOURCE_RULES
    + STREAM_RULES
    + LEARNING_RULES
    + METHOD_RULES
    + VISION_RULES
    + RUNNING_RULES
    + SCHEDULING_RULES
    + OUTPUT_RULES
    + CUSTOM_RULES
)


def check_job(spec: Mapping[str, Any], *, has_run: bool = False) -> list[Problem]:
    """Rules that a job's spec breaks, whatever a preset may still add. The spec must fit its schema."""
    written = Written(flatten(spec))
    return [_problem(rule, written) for rule in _in_force(has_run=has_run) if not rule.kept_by_job(written)]


def check_preset(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that a preset's spec breaks, whatever a job may still add. The spec must fit its schema."""
    written = Written(flatten(spec))
    return [_problem(rule, written) for rule in RULES if not rule.kept_by_preset(written)]


def check_resolved(resolution: Resolution, *, has_run: bool = False) -> list[Problem]:
    """Rules that job, preset, Dataset and BaseModel together break; nothing is open any more."""
    spec = resolution.spec
    leaves = flatten(spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    said = ("job", "preset", "dataset", "model") if spec.method_ref is None else ("job", "preset", "dataset", "model", "method")
    written = Written({path: value for path, value in leaves.items() if resolution.sources.get(path) in said})
    broken = [_problem(rule, written) for rule in _in_force(has_run=has_run) if not rule.holds(written)]
    if spec.method is None:
        return broken
    too_long = [] if has_run else limit_problems(written, spec.training.max_seq_length)
    return broken + too_long + argument_problems(spec.training.extra_args, spec.method)


def _in_force(*, has_run: bool) -> tuple[Rule, ...]:
    """The rules for a job, that has run already or not."""
    return tuple(rule for rule in RULES if not (has_run and rule.before_run))


def check_name(name: str) -> list[Problem]:
    """Whether a FineTuneJob may have this name."""
    if len(name) <= MAX_JOB_NAME and re.search(JOB_NAME_PATTERN, name):
        return []
    return [Problem("metadata.name", name, JOB_NAME.message)]


def _problem(rule: Rule, written: Written) -> Problem:
    return Problem(f"spec.{rule.path}", written[rule.path], rule.say(written))
