"""preflight: whether a training fits is known before a GPU is asked for (N-01, N-02, N-05)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import MemoryFacts, PreflightResult, TrainingFacts
from finetune_api.contract.store import Pinned
from finetune_trainer.protocol import MeasuredTokens
from finetune_trainer.store.local import LocalStore
from finetune_trainer.verbs import data_check
from finetune_trainer.verbs.preflight import run_preflight
from tests.support.models import write_sizes
from tests.support.shapes import LLAMA_8B
from tests.unit.finetune_trainer.verbs.conftest import LLAMA_CONFIG, VerbPod


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


def test_short_rows_are_not_reckoned_as_the_model_s_context(llama: VerbPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """X09, F-34: lora-chat asks for the context; rows that were counted say how much of it is used."""
    chat = {"training": {"batchSize": 4, "maxSeqLength": 0}, "quantization": {"mode": "none"}}
    assert examine(llama, "40Gi", chat) == 0, llama.message.message
    assert facts(llama).sequence_tokens == 8192
    unknown = facts(llama).terms["activations"]
    counted = MeasuredTokens(rows=2, tokens={"p50": 300, "p95": 500, "max": 600})
    monkeypatch.setattr(data_check, "measure_tokens", lambda *_args: counted)
    monkeypatch.setattr(data_check, "_tokenizer_directory", lambda *_args: llama.directory)
    assert examine(llama, "40Gi", chat) == 0, llama.message.message
    assert facts(llama).sequence_tokens == 600
    assert facts(llama).terms["activations"] < unknown / 10


def test_an_adapter_on_modules_the_model_lacks_is_refused(llama: VerbPod) -> None:
    """G-07: before a GPU is taken, in the words of the worker; the estimate tells which there are."""
    custom = {"adapter": {"targetModules": ["q_proj", "query_key_value"], "allowCustomModules": True}}
    assert examine(llama, "80Gi", custom) != 0
    said = llama.message.message
    assert said.startswith("adapter.targetModules: the model has no module named query_key_value; it has down_proj, embed_tokens, ")
    assert llama.message.failure_class is FailureClass.MODEL
    assert examine(llama, "80Gi", {"adapter": {"targetModules": ["all-linear"]}}) == 0
    assert facts(llama).target_modules == "down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj"
    config = json.loads((llama.directory / "pvc/models/tiny/config.json").read_text())
    (llama.directory / "pvc/models/tiny/config.json").write_text(json.dumps(config | {"model_type": "renamed_while_it_loads"}))
    assert examine(llama, "80Gi", custom) == 0, "names in its files need not be those of its modules"


def test_an_output_layer_that_is_tied_is_a_target_all_the_same(llama: VerbPod) -> None:
    """Its weights are the embedding's, and in the files once."""
    tensors = {f"{name}.weight": list(shape) for name, shape in LLAMA_8B.tensors.items() if name != "lm_head"}
    write_sizes(llama.directory / "pvc/models/tiny", LLAMA_CONFIG, tensors)
    head = {"adapter": {"targetModules": ["q_proj", "lm_head"], "allowCustomModules": True}}
    assert examine(llama, "80Gi", head) == 0, llama.message.message


FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": {"type": "full"}}, "adapter.type: full, but the model of model.uri is stored in 4 bits"),
        ({"output": {"merge": True}}, "no adapter can be merged into it"),
        ({"output": {"export": {"gguf": {"enabled": True}}}}, "no adapter can be merged into it"),
    ],
)
def test_a_base_in_4_bits_is_judged_beforehand(llama: VerbPod, changes: dict[str, Any], said: str) -> None:
    """X32, C-09, X-03: before hours of training."""
    config = llama.directory / "pvc/models/tiny/config.json"
    config.write_text(json.dumps(LLAMA_CONFIG | {"quantization_config": FOUR_BITS}))
    assert examine(llama, "80Gi") == 0, llama.message.message
    assert facts(llama).quantization == "4bit"
    assert examine(llama, "80Gi", changes) != 0
    assert said in llama.message.message


@pytest.mark.parametrize(
    ("memory", "changes", "said"),
    [
        ("12Gi", {"device": "cpu"}, "each rank of a pod holds a copy of the weights, 15.0 GiB of main memory: set it to more than 15Gi"),
        ("24Gi", {"device": "cpu"}, None),
        ("12Gi", {"gpuMemory": "80Gi"}, None),
    ],
)
def test_main_memory_below_one_copy_is_told(llama: VerbPod, memory: str, changes: dict[str, Any], said: str | None) -> None:
    """M-04: weights in 16 bits at least; on a GPU without sharding they never are in main memory."""
    assert examine(llama, None, {"resources": {"device": "gpu", "memory": memory, **changes}}) == 0, llama.message.message
    told = warnings(llama).get("MemoryTooSmall")
    assert (told is None) if said is None else (told is not None and said in told)


def test_what_the_store_will_hold(llama: VerbPod) -> None:
    """J-06, R-05: keepLast of them with the optimizer's moments, the others of keepLastRemote without."""
    steps = {"training": {"maxSteps": 1000}, "checkpoint": {"steps": 100, "keepLast": 3, "keepLastRemote": 8}}
    assert examine(llama, "80Gi", steps) == 0, llama.message.message
    weights = 4 * 6_815_744
    assert training(llama).store_bytes == 3 * 3 * weights + 5 * weights
    assert examine(llama, "80Gi", steps | {"training": {"maxSteps": 400}}) == 0
    assert training(llama).store_bytes == 3 * 3 * weights + 1 * weights


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
