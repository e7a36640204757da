"""Reads outputs back in a process that did not make them, and compares their logits with those of the final weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.families import family_of
from finetune_trainer.outputs.gguf_file import Floats, tensors_of
from finetune_trainer.outputs.merge import loader_of
from finetune_trainer.outputs.plan import OutputsPlan, OutputsResult
from finetune_trainer.outputs.probe import Logits, correlation, largest_difference, logits_of, processor_of
from finetune_trainer.prepare.tokenizer import load_tokenizer

log = logging.getLogger(__name__)
LEAST_CORRELATION: Final[Mapping[str, float]] = {"merged": 0.99, "F16": 0.99, "BF16": 0.99, "Q8_0": 0.98, "Q4_0": 0.5}
"""Below it an output is broken, not rounded: swapped rows or a wrong name leave about 0."""


def check(plan: OutputsPlan) -> OutputsResult:
    """Measure every output. Raises :class:`TrainerError` (Unknown) for one that answers like another model."""
    tokenizer = load_tokenizer(plan.final_dir, runs_code=plan.runs_code)
    deltas = {}
    if plan.merged_wanted:
        loader = loader_of(plan.model_dir)
        model = loader.from_pretrained(plan.model_dir, dtype="auto", local_files_only=True, trust_remote_code=plan.runs_code)
        deltas["merged"] = _measure(plan, "merged", logits_of(model, tokenizer, processor_of(plan.model_dir, plan.model_dir)))
        del model
    for kind in plan.gguf:
        deltas[kind] = _measure(plan, kind, logits_of(model_of_gguf(plan.gguf_file(kind), plan.model_dir), tokenizer))
    return OutputsResult(deltas=deltas)


def model_of_gguf(path: Path, model_dir: Path) -> PreTrainedModel:
    """The model with every weight taken from a GGUF file, in the precision it has otherwise; one tensor at a time.

    Raises :class:`TrainerError` (Unknown) when the file lacks a weight.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto", local_files_only=True, trust_remote_code=False)
    config = model.config.to_dict()
    own = dict(model.named_parameters())
    back = names_of_gguf(config, list(own))
    left = set(own)
    with torch.no_grad():
        for stored, values in tensors_of(path):
            name = back.get(stored)
            if name is not None:
                own[name].copy_(torch.from_numpy(rows_of_transformers(stored, values, config)))
                left.discard(name)
    if left:
        raise TrainerError(FailureClass.UNKNOWN, f"output: {path.name} lacks {', '.join(sorted(left)[:3])}")
    return model


def names_of_gguf(config: Mapping[str, Any], names: list[str]) -> dict[str | None, str]:
    """GGUF's name of each parameter -> the parameter."""
    architecture = next(number for number, name in MODEL_ARCH_NAMES.items() if name == family_of(config).architecture)
    known = get_tensor_name_map(MODEL_ARCH(architecture), int(config["num_hidden_layers"]))
    return {known.get_name(name, try_suffixes=(".weight", ".bias")): name for name in names}


def rows_of_transformers(name: str, values: Floats, config: Mapping[str, Any]) -> Floats:
    """Undo the reordering of rows in q and k."""
    if not (family_of(config).permutes_heads and (".attn_q." in name or ".attn_k." in name)):
        return values.copy()
    heads = int(config["num_attention_heads"] if ".attn_q." in name else config["num_key_value_heads"])
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _measure(plan: OutputsPlan, name: str, logits: Logits) -> float:
    alike, delta = correlation(plan.reference, logits), largest_difference(plan.reference, logits)
    log.info("%s: largest difference of logits %.3g, correlation %.6f", name, delta, alike)
    if not alike >= LEAST_CORRELATION[name]:
        raise TrainerError(
            FailureClass.UNKNOWN,
            f"output {name}: read back, it answers like another model (correlation of logits {alike:.3f}); it is not kept. Report it.",
        )
    return delta
