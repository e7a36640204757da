"""Reads outputs as anybody would: transformers and peft alone, in a process of its own. Knows nothing of this project.

``python foreign_reader.py CASES.json``: a list of ``{"name", "reference", "texts", "base", "final", "merged", "gguf": {format: file}}``;
prints ``{name: {form: {"delta": max |difference|, "tokens": bool}}}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def logits_of(model: Any, token_ids: list[list[int]]) -> list[Any]:
    """Logits of every text, float32."""
    model.eval()
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits[0].float().numpy() for ids in token_ids]


def compare(reference: list[Any], model: Any, token_ids: list[list[int]]) -> float:
    """Largest absolute difference of logits."""
    return max(float(np.abs(a - b).max()) for a, b in zip(reference, logits_of(model, token_ids), strict=True))


def read(case: dict[str, Any]) -> dict[str, Any]:
    """Every form of one case."""
    with np.load(case["reference"]) as stored:
        reference = [stored[name] for name in stored.files]
    original = AutoTokenizer.from_pretrained(case["final"])
    token_ids = [original(text, add_special_tokens=False).input_ids[:64] for text in case["texts"]]
    found: dict[str, Any] = {}
    base = AutoModelForCausalLM.from_pretrained(case["base"], dtype="auto")
    dtype = base.dtype
    found["adapter"] = {"delta": compare(reference, PeftModel.from_pretrained(base, case["final"]), token_ids), "tokens": True}
    merged = AutoModelForCausalLM.from_pretrained(case["merged"], dtype="auto")
    same = AutoTokenizer.from_pretrained(case["merged"])(case["texts"]).input_ids == original(case["texts"]).input_ids
    found["merged"] = {"delta": compare(reference, merged, token_ids), "tokens": same}
    for kind, file in case["gguf"].items():
        path = Path(file)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        same = [tokenizer(text, add_special_tokens=False).input_ids[:64] for text in case["texts"]] == token_ids
        found[kind] = {"delta": compare(reference, model, token_ids), "tokens": same}
    return found


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps({case["name"]: read(case) for case in cases}))
