"""A worker that tells how it generates, as on a device for which transformers compiles: a line of ``FINETUNE_TEST_CALLS`` for each call.

What would be compiled is noted and run as it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, PreTrainedModel
from transformers.generation import GenerationMixin

from finetune_trainer.worker.__main__ import main as work


def main() -> int:
    """Run a worker."""
    file = Path(os.environ["FINETUNE_TEST_CALLS"])
    generate, prefill = GenerationMixin.generate, GenerationMixin._prefill
    call: dict[str, Any] = {}

    def watched(self: Any, *args: Any, generation_config: GenerationConfig, **inputs: Any) -> Any:
        call.update(batch=len(inputs["input_ids"]), cache="", compiled=False)
        generation_config.compile_config = CompileConfig()
        generation_config.compile_config._compile_all_devices = True
        result = generate(self, *args, generation_config=generation_config, **inputs)
        with file.open("a") as lines:
            lines.write(json.dumps(call) + "\n")
        return result

    def with_cache(self: Any, input_ids: torch.Tensor, config: GenerationConfig, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        call["cache"] = type(inputs["past_key_values"]).__name__
        return prefill(self, input_ids, config, inputs, *args, **options)

    def compiled(self: Any, _config: CompileConfig | None) -> Callable[..., Any]:
        call["compiled"] = True
        forward: Callable[..., Any] = self.__call__
        return forward

    GenerationMixin.generate, GenerationMixin._prefill, PreTrainedModel.get_compiled_call = watched, with_cache, compiled
    return work()
