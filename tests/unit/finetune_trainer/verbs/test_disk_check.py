"""preflight: a disk that will not do is known before a GPU is asked for (J-06)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import PreflightResult
from finetune_trainer.verbs.preflight import run_preflight
from tests.support.hub import running_hub
from tests.support.models import model_files
from tests.unit.finetune_trainer.verbs.conftest import VerbPod

CHECKPOINT = 3 * 4 * 6_815_744
"""Float32 adapter weights and two moments each."""


def examine(pod: VerbPod, **resources: str) -> PreflightResult:
    changes: dict[str, Any] = {
        "resources": {"device": "gpu", "gpuMemory": "80Gi", **resources},
        "training": {"maxSteps": 1000},
        "checkpoint": {"steps": 100, "keepLast": 3},
    }
    assert run_preflight(pod.environment(changes)) == 0, pod.message.message
    return PreflightResult.model_validate(pod.message.result)


@pytest.mark.parametrize(("limit", "is_told"), [("300Mi", True), ("1Gi", False)])
def test_checkpoints_that_do_not_fit_are_told(llama: VerbPod, limit: str, is_told: bool) -> None:
    """Three that are kept and one that is written; weights of a claim are not copied. Field, figures and ways out."""
    found = examine(llama, ephemeralStorage=limit)
    assert found.training is not None
    assert found.training.disk_bytes == 4 * CHECKPOINT
    said = found.warnings.get("DiskTooSmall", "")
    assert bool(said) is is_told
    if is_told:
        assert said.startswith("resources.ephemeralStorage 300Mi: a pod will need at least 0.3 GiB of disk, 0.3 for 4 checkpoints")
        assert "set it to more than 1Gi, lower checkpoint.keepLast, or use cache.claimName" in said


def test_weights_that_do_not_fit_into_the_cache_are_refused(verb_pod: VerbPod) -> None:
    """Of a hub's model, by the sizes it tells: the pod would be evicted while it fetches them."""
    secret = verb_pod.directory / "secrets/huggingface"
    secret.mkdir(parents=True)
    with running_hub() as hub:
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        hub.add("models", "acme/tiny", model_files())
        changes = {"model": {"uri": "hf://acme/tiny"}, "cache": {"sizeLimit": "8"}}
        assert run_preflight(verb_pod.environment(changes)) == 42
        message = verb_pod.message
        assert message.failure_class is FailureClass.CONFIGURATION
        assert message.message.startswith("cache.sizeLimit 8: the weights that each pod fetches take 0.0 GiB: set it to more than 1Gi")
        assert run_preflight(verb_pod.environment(changes | {"cache": {"sizeLimit": "1Gi"}})) == 0
        assert run_preflight(verb_pod.environment(changes | {"model": {"uri": "pvc://models/tiny"}})) == 0
