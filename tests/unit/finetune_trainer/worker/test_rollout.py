"""``grpo.rollout: vllm``: what TRL and vLLM's engine are told, and the refusal of an image without it (B-07, H-06, H-07, LF-9).

vLLM itself needs a GPU and is in no environment of the tests: its engine is stood in for where TRL makes it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from trl import GRPOConfig, GRPOTrainer
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer import rollout
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.tokens import Limits
from finetune_trainer.rollout import check_rollout
from finetune_trainer.worker.methods.grpo import AnswerTrainer
from finetune_trainer.worker.methods.rollout import engine_settings, rollout_arguments
from tests.unit.finetune_trainer.worker.conftest import MakeSpec

LIMITS = Limits(sequence=96, prompt=64, completion=32)
REWARD = {"rewardFunctions": [{"type": "length", "maxTokens": 6}]}


def job(make_spec: MakeSpec, **settings: Any) -> FineTuneJobSpec:
    """A job of method grpo on a GPU."""
    spec = make_spec(training={"batchSize": 4, "seed": 7}, resources={"device": "gpu"}, grpo={**REWARD, **settings}, method="grpo")
    assert spec.grpo is not None
    return spec


def test_hf_is_the_default_and_takes_no_argument_of_vllm(make_spec: MakeSpec) -> None:
    arguments = rollout_arguments(job(make_spec), LIMITS)
    assert arguments == {"cache_implementation": "static", "generation_kwargs": {"use_cache": True}}
    assert rollout_arguments(job(make_spec, enforceEager=True), LIMITS)["cache_implementation"] is None


def test_the_engine_gets_the_jobs_settings(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through TRL's own code, from its arguments to the engine: memory, length, sequences at once, eager, seed by job and rank."""
    spec = job(make_spec, rollout="vllm", vllmMemory=0.4, maxNumSeqs=16, enforceEager=True)
    args = GRPOConfig(
        output_dir="unused", bf16=False, use_cpu=True, report_to="none", activation_checkpointing=False, **rollout_arguments(spec, LIMITS)
    )
    assert (args.use_vllm, args.vllm_mode, args.trust_remote_code) == (True, "colocate", False)
    made: dict[str, Any] = {}

    def engine(**options: Any) -> str:
        made.update(options)
        return "engine"

    monkeypatch.setattr(vllm_generation, "LLM", engine, raising=False)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    accelerator = SimpleNamespace(num_processes=2, process_index=1, local_process_index=1, wait_for_everyone=lambda: None)
    monkeypatch.setattr(vllm_generation, "DistributedBackend", lambda _accelerator: None)
    model = SimpleNamespace(name_or_path="/work/model", named_modules=lambda: iter(()))
    with engine_settings(spec):
        VLLMGeneration(
            model=model,
            accelerator=accelerator,
            processing_class=None,
            mode=args.vllm_mode,
            gpu_memory_utilization=args.vllm_gpu_memory_utilization,
            max_model_length=args.vllm_max_model_length,
            max_num_seqs=99,
            trust_remote_code=args.trust_remote_code,
        )
    expected = {
        "model": "/work/model",
        "gpu_memory_utilization": 0.4,
        "max_model_len": 96,
        "max_num_seqs": 16,
        "enforce_eager": True,
        "seed": 8,
        "trust_remote_code": False,
    }
    assert made | expected == made
    assert vllm_generation.LLM is engine


def test_all_answers_go_to_the_engine_at_once_with_their_probabilities(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine queues by itself; TRL corrects the loss by the probabilities it was told."""
    asked: list[int] = []

    def generate(_self: Any, prompts: list[list[int]], *_: Any, **__: Any) -> Any:
        asked.append(len(prompts))
        return [[1, 2] for _ in prompts], [[-0.1, -0.2] for _ in prompts]

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generate)
    trainer = AnswerTrainer.__new__(AnswerTrainer)
    spec = job(make_spec, rollout="vllm", maxNumSeqs=2)
    assert spec.grpo is not None
    beats: list[tuple[str, int]] = []
    session = SimpleNamespace(heartbeat=SimpleNamespace(beat=lambda phase, count: beats.append((phase, count))))
    trainer.__dict__ |= {"_settings": spec.grpo, "_answers": 0, "_session": session, "model": SimpleNamespace(training=True)}
    answers, probabilities = trainer._generate_single_turn([[5]] * 5, None, {}, 4)
    assert (asked, answers, probabilities) == ([5], [[1, 2]] * 5, [[-0.1, -0.2]] * 5)
    assert beats == [("Training", 5)]


def test_an_image_without_vllm_is_refused_by_name(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field, what the image lacks, and both remedies; hf asks for nothing."""
    spec, plain = job(make_spec, rollout="vllm"), job(make_spec)
    assert spec.grpo is not None
    assert plain.grpo is not None
    check_rollout(plain.grpo)
    with pytest.raises(
        TrainerError, match=r"^grpo\.rollout: vllm is not in this image: set resources\.image to .* trainer-image/vllm"
    ) as error:
        check_rollout(spec.grpo)
    assert error.value.failure_class is FailureClass.CONFIGURATION
    monkeypatch.setattr(rollout, "find_spec", lambda name: name == "vllm" or None)
    check_rollout(spec.grpo)
