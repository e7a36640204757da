"""``grpo.rollout: vllm``: TRL's vLLM in the trainer's own process, on the trained model's GPU, with the settings of the job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from trl.generation import vllm_generation

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.tokens import Limits

NOT_REPEATED: Final = (
    "grpo.rollout is vllm, whose random state no checkpoint holds: the answers from here on are others than those of a run that was never "
    "interrupted; hf repeats them"
)


def rollout_arguments(spec: FineTuneJobSpec, limits: Limits) -> dict[str, Any]:
    """TRL's arguments for what generates the answers."""
    settings = spec.grpo
    assert settings is not None, "a resolved job of method grpo has the block"
    if settings.rollout == "hf":
        return {"cache_implementation": None if settings.enforce_eager else "static", "generation_kwargs": {"use_cache": True}}
    assert limits.completion is not None, "where the model writes, the limits are those for generation"
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": settings.vllm_memory,
        "vllm_max_model_length": limits.prompt + limits.completion,
        "trust_remote_code": spec.model.trust_remote_code,
    }


@contextmanager
def engine_settings(spec: FineTuneJobSpec) -> Iterator[None]:
    """While a trainer is built: give vLLM's engine what TRL decides itself or has no argument for (LF-9)."""
    settings = spec.grpo
    if settings is None or settings.rollout == "hf":
        yield
        return
    engine: Callable[..., Any] = vllm_generation.LLM

    def with_settings(**options: Any) -> Any:
        own = {"max_num_seqs": settings.max_num_seqs, "enforce_eager": settings.enforce_eager}
        return engine(**options | own | {"seed": spec.training.seed + options["seed"]})

    vllm_generation.LLM = with_settings
    try:
        yield
    finally:
        vllm_generation.LLM = engine
