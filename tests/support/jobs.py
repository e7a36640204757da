"""FineTuneJob documents for tests: small, on CPU, seconds per run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

BASE: dict[str, Any] = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "job"},
    "spec": {
        "model": {"uri": "s3://finetune/models/tiny-test"},
        "dataset": {"uri": "configmap://sft/train.jsonl", "maxSamples": 256, "numWorkers": 0},
        "adapter": {"type": "lora", "rank": 8, "targetModules": ["all-linear"]},
        "training": {
            "batchSize": 2,
            "gradAccumSteps": 4,
            "maxSeqLength": 128,
            "learningRate": 1e-3,
            "maxSteps": 100,
            "gradientCheckpointing": False,
        },
        "resources": {"device": "cpu", "cpu": "200m", "memory": "3Gi"},
        "checkpoint": {"steps": 20},
        "logging": {"steps": 1},
        "pausePolicy": {"graceSeconds": 60, "timeoutSeconds": 240},
        "retry": {"backoffSeconds": 1},
    },
}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep merge; None removes a key."""
    result = dict(copy.deepcopy(dict(base)))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def make_job(name: str, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A test job with changes to its spec."""
    return merge(BASE, {"metadata": {"name": name}, "spec": spec or {}})
