"""preflight: whether a training fits is known before a GPU is asked for (N-01, N-02, N-05)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import MemoryFacts, PreflightResult, TrainingFacts
from finetune_api.contract.store import Pinned
from finetune_trainer.store.local import LocalStore
from finetune_trainer.verbs.preflight import run_preflight
from tests.support.shapes import LLAMA_8B
from tests.unit.finetune_trainer.verbs.conftest import VerbPod


def examine(pod: VerbPod, memory: str | None, changes: dict[str, Any] | None = None) -> int:
    resources = {"device": "gpu"} | ({"gpuMemory": memory} if memory is not None else {})
    return run_preflight(pod.environment({"resources": resources, **(changes or {})}))


def facts(pod: VerbPod) -> MemoryFacts:
    found = PreflightResult.model_validate(pod.message.result).memory
    assert found is not None
    return found


def warnings(pod: VerbPod) -> dict[str, str]:
    return PreflightResult.model_validate(pod.message.result).warnings


def test_what_fits_is_told_term_by_term(llama: VerbPod) -> None:
    """B-14, C-04, AC-75: parameters, trainable ones and each term; the numbers add up."""
    assert examine(llama, "80Gi") == 0, llama.message.message
    found = facts(llama)
    assert (found.parameters, found.trainable_parameters) == (LLAMA_8B.parameters, 6_815_744)
    assert (found.strategy, found.quantization, found.gpu_bytes) == ("none", "none", 80 * 2**30)
    assert sum(found.terms.values()) == found.total_bytes < 80 * 2**30
    assert found.terms["weights"] == 2 * LLAMA_8B.parameters
    assert "fits" in warnings(llama)["QuantizationDecided"]


def test_a_small_gpu_gets_a_4_bit_base_with_the_reason(llama: VerbPod) -> None:
    """AC-76: decided beforehand, with the numbers of both ways."""
    assert examine(llama, "16Gi") == 0, llama.message.message
    assert facts(llama).quantization == "4bit"
    assert "unquantised with strategy none would need" in warnings(llama)["QuantizationDecided"]


@pytest.mark.parametrize(
    ("memory", "changes"), [("4Gi", {}), ("16Gi", {"quantization": {"mode": "none"}}), ("80Gi", {"adapter": {"type": "full"}})]
)
def test_what_does_not_fit_is_refused_with_all_terms(llama: VerbPod, memory: str, changes: dict[str, Any]) -> None:
    """N-05: no GPU is asked for; the terms and the lever that helps most are named."""
    batch = {"training": {"batchSize": 2, "gradAccumSteps": 2, "maxSeqLength": 8192, "gradientCheckpointing": False}}
    assert examine(llama, memory, {**batch, **changes}) != 0
    message = llama.message
    assert message.failure_class is FailureClass.CONFIGURATION
    assert message.message.startswith("InsufficientVRAM: ")
    assert f"the GPU has {memory[:-2]}.0 GiB (GiB: weights " in message.message
    assert "most of it is " in message.message
    assert facts(llama).total_bytes > int(memory[:-2]) * 2**30


def test_an_unknown_gpu_is_no_reason_to_refuse(llama: VerbPod) -> None:
    """Without resources.gpuMemory the terms are told; the driver is asked at start."""
    assert examine(llama, None, {"adapter": {"type": "full"}}) == 0
    assert facts(llama).gpu_bytes is None
    assert "QuantizationDecided" not in warnings(llama)


def test_what_has_run_is_not_judged_again(llama: VerbPod) -> None:
    """Strategy and quantisation of the first attempt stay; an estimate does not stop a job that trained."""
    pinned = Pinned(contract_version=CONTRACT_VERSION, strategy="zero2", quantization="none")
    LocalStore(llama.directory / "store/team/job").put("pinned.json", pinned.to_json().encode())
    assert examine(llama, "16Gi") == 0, llama.message.message
    assert (facts(llama).strategy, facts(llama).quantization) == ("zero2", "none")
    assert "QuantizationDecided" not in warnings(llama)


FULL_OFFLOAD = {"adapter": {"type": "full"}, "replicas": 2, "distributed": {"strategy": "zero3_offload"}}


def test_main_memory_that_an_offload_needs(llama: VerbPod) -> None:
    """M-04: float32 weight, gradient and two moments of what is trained, and with ZeRO 3 the weights; half of it on each of two pods."""
    assert examine(llama, "80Gi", FULL_OFFLOAD) == 0, llama.message.message
    found = facts(llama)
    assert found.pod_bytes == round(1.5 * 18 * LLAMA_8B.parameters / 2) + 3 * 2**30
    assert "about 104.0 GiB of main memory per pod for what zero3_offload keeps there" in found.reason
    assert "MemoryTooSmall" not in warnings(llama)
    assert examine(llama, "80Gi", {**FULL_OFFLOAD, "distributed": {"strategy": "zero2"}, "adapter": {"type": "lora"}}) == 0
    assert facts(llama).pod_bytes is None


@pytest.mark.parametrize(("memory", "is_told"), [("64Gi", True), ("103Gi", True), ("105Gi", False)])
def test_main_memory_that_is_too_small_is_told(llama: VerbPod, memory: str, is_told: bool) -> None:
    """M-04: before the kernel ends the pod; field, value, need and ways out."""
    changes = {**FULL_OFFLOAD, "resources": {"device": "gpu", "gpuMemory": "80Gi", "memory": memory}}
    assert examine(llama, None, changes) == 0, llama.message.message
    said = warnings(llama).get("MemoryTooSmall", "")
    assert bool(said) is is_told
    if is_told:
        assert said.startswith(f"resources.memory {memory}: strategy zero3_offload keeps optimizer state in main memory")
        assert "set it to 104Gi or more, leave it unset" in said


def test_a_model_without_sizes_is_not_estimated(verb_pod: VerbPod) -> None:
    assert examine(verb_pod, "80Gi") == 0, verb_pod.message.message
    assert PreflightResult.model_validate(verb_pod.message.result).memory is None


def test_a_broken_peft_config_is_named_beforehand(llama: VerbPod) -> None:
    peft = llama.directory / "configmap/peft"
    peft.mkdir()
    (peft / "adapter.json").write_text("{")
    assert examine(llama, "80Gi", {"adapter": {"peftConfig": "configmap://peft/adapter.json"}}) != 0
    assert llama.message.message.startswith("adapter.peftConfig configmap://peft/adapter.json")
    assert "is no JSON" in llama.message.message


def training(pod: VerbPod) -> TrainingFacts:
    found = PreflightResult.model_validate(pod.message.result).training
    assert found is not None
    return found


def test_the_size_of_a_checkpoint_is_what_is_trained_and_its_moments(llama: VerbPod) -> None:
    """J-06, O-15: float32 adapter weights and two moments each; keepLast of them stay, but never more than there are."""
    steps = {"training": {"maxSteps": 1000}, "checkpoint": {"steps": 100, "keepLast": 3}}
    assert examine(llama, "80Gi", steps) == 0, llama.message.message
    found = training(llama)
    assert (found.steps, found.stop_by, found.checkpoints) == (1000, "steps", 10)
    assert found.checkpoint_bytes == 3 * 4 * 6_815_744
    assert found.kept_bytes == 3 * 3 * 4 * 6_815_744
    assert examine(llama, "80Gi", steps | {"training": {"maxSteps": 100}}) == 0
    assert (training(llama).checkpoints, training(llama).kept_bytes) == (1, found.checkpoint_bytes)


def test_several_gpus_for_few_rows_are_advised_against(llama: VerbPod) -> None:
    """AC-50, L-04: two rows of an 8B model."""
    assert examine(llama, "80Gi") == 0
    assert "SingleGpuRecommended" not in warnings(llama)
    assert examine(llama, "80Gi", {"replicas": 4}) == 0
    assert "8.0 billion parameters train on 4 GPUs" in warnings(llama)["SingleGpuRecommended"]
