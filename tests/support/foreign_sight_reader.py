"""Reads a vision-language result as anybody would: transformers and peft alone, in a process of its own. Knows nothing of this project.

``python foreign_sight_reader.py CASE.json``: ``{"reference": npz, "image": png, "texts": [...], "base", "final", "merged"}``, where the
last array of the reference is of the image and the last text; prints ``{"adapter": max |difference|, "merged": max |difference|}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


def difference(case: dict[str, Any], model: Any, processor: Any) -> float:
    """Largest absolute difference of logits."""
    model.eval()
    inputs = [processor.tokenizer(text, add_special_tokens=False, return_tensors="pt") for text in case["texts"][:-1]]
    image = Image.open(case["image"])
    inputs.append(processor(text=[processor.image_token + case["texts"][-1]], images=[image], return_tensors="pt"))
    with np.load(case["reference"]) as stored, torch.inference_mode():
        pairs = zip(stored.files, inputs, strict=True)
        return max(float(np.abs(stored[name] - model(**given).logits[0].float().numpy()).max()) for name, given in pairs)


def main(case: dict[str, Any]) -> dict[str, float]:
    """Read both forms."""
    base = AutoModelForImageTextToText.from_pretrained(case["base"], dtype="auto")
    adapted = PeftModel.from_pretrained(base, case["final"])
    merged = AutoModelForImageTextToText.from_pretrained(case["merged"], dtype="auto")
    return {
        "adapter": difference(case, adapted, AutoProcessor.from_pretrained(case["final"])),
        "merged": difference(case, merged, AutoProcessor.from_pretrained(case["merged"])),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
