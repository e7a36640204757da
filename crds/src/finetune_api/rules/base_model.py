"""Rules for BaseModels: those of a job's model, on the fields of the catalogue, and those of a preset, on the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finetune_api.placement import fields_read
from finetune_api.problems import Problem
from finetune_api.resolve import flatten
from finetune_api.rules import RULES
from finetune_api.rules.rule import Rule
from finetune_api.rules.sources import MODEL_SCHEMES, address_rule, commit_rule, gguf_rule
from finetune_api.written import Written

DEFAULTABLE: Final = frozenset(
    {
        "adapter.rank",
        "adapter.alpha",
        "adapter.dropout",
        "adapter.targetModules",
        "adapter.allowCustomModules",
        "quantization.mode",
        "precision.dtype",
        "precision.fp16",
        "precision.bf16",
        "precision.tf32",
        "training.maxSeqLength",
        "training.longContext",
        "training.gradientCheckpointing",
        "dataset.chatTemplate",
    }
)
"""Fields of a job that a model has a say in: what it is made of and how it wants to be held; not what it is trained for, on or with."""

ENTRY_RULES: tuple[Rule, ...] = (address_rule("uri", MODEL_SCHEMES), commit_rule("uri", "trustRemoteCode"), gguf_rule("uri"))
"""On the fields of a BaseModel."""
DEFAULT_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if fields_read(rule.cel) <= DEFAULTABLE)
"""On its defaults: the rules that read nothing else."""


def check_base_model(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that the spec of a BaseModel breaks. The spec must fit its schema."""
    entry, defaults = Written(flatten(spec)), Written(flatten(spec.get("defaults") or {}))
    own = [Problem(f"spec.{rule.path}", entry[rule.path], rule.say(entry)) for rule in ENTRY_RULES if not rule.holds(entry)]
    return own + [
        Problem(f"spec.defaults.{rule.path}", defaults[rule.path], rule.say(defaults))
        for rule in DEFAULT_RULES
        if not rule.kept_by_preset(defaults)
    ]
