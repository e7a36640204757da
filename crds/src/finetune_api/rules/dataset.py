"""Rules for Datasets: those of a job's block dataset, on the fields that say where the data is and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.constants import MAX_JOB_NAME
from finetune_api.problems import Problem
from finetune_api.resolve import flatten
from finetune_api.rules.rule import Rule
from finetune_api.rules.running import JOB_NAME, JOB_NAME_PATTERN, SchemaRule
from finetune_api.rules.sources import DATA_SCHEMES, MODEL_SCHEMES, address_rule, bucket_rule, columns_rule
from finetune_api.written import Written

DATASET_RULES: tuple[Rule, ...] = (
    address_rule("uri", DATA_SCHEMES),
    address_rule("evalUri", DATA_SCHEMES),
    address_rule("tokenizer.uri", MODEL_SCHEMES),
    bucket_rule("secretRef", "is required for s3:// and gs:// data; name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", ""),
    bucket_rule("region", "is required for s3:// and gs:// data; write the bucket's region, for example us-east-1", ""),
    columns_rule(""),
)
DATASET_NAME = SchemaRule(
    id="dataset-name",
    requirement="D-12",
    cel=JOB_NAME.cel,
    message=f"must have at most {MAX_JOB_NAME} characters, start with a letter and hold only a-z, 0-9 and -, since Jobs are named after it",
)
"""On the whole object."""


def check_dataset(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that the spec of a Dataset breaks. The spec must fit its schema."""
    written = Written(flatten(spec))
    return [Problem(f"spec.{rule.path}", written[rule.path], rule.say(written)) for rule in DATASET_RULES if not rule.holds(written)]


def check_dataset_name(name: str) -> list[Problem]:
    """Whether a Dataset may have this name."""
    if len(name) <= MAX_JOB_NAME and re.search(JOB_NAME_PATTERN, name):
        return []
    return [Problem("metadata.name", name, DATASET_NAME.message)]
