"""How a model answers: logits on fixed texts, to compare forms of it, and generated answers, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from finetune_api.contract.store import SamplePrompt
from finetune_trainer.outputs.plan import Answer
from finetune_trainer.prepare.processor import load_processor
from finetune_trainer.vision import has_vision, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Logits: TypeAlias = Sequence[NDArray[np.float32]]
"""Per text: (tokens, vocabulary)."""

TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Question: how many pods does a job with 3 replicas have?\nAnswer:",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
)
SIDE: Final = 168
"""Pixels of the side of the image."""
MAX_TOKENS: Final = 64
MAX_NEW_TOKENS: Final = 64
MAX_PROMPT_TOKENS: Final = 1024


def processor_of(model_dir: Path, words_dir: Path) -> Any | None:
    """The processor in ``words_dir`` of a vision-language model; None for a model of texts alone."""
    return load_processor(words_dir) if has_vision(read_config(model_dir)) else None


def logits_of(model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any | None = None) -> Logits:
    """Logits at every position of the fixed texts, and of an image where there is a processor, in float32."""
    found = []
    model.eval()
    with torch.inference_mode():
        for text in TEXTS:
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[:, :MAX_TOKENS]
            found.append(model(input_ids=ids).logits[0].float().numpy())
        if processor is not None:
            seen = processor(text=[processor.image_token + TEXTS[0]], images=[gradient()], return_tensors="pt")
            found.append(model(**seen).logits[0].float().numpy())
    return found


def gradient() -> Image.Image:
    """A fixed image in which no two corners are alike."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.uint8)
    return Image.fromarray(np.stack([rows, columns, rows ^ columns], axis=-1))


def save_logits(logits: Logits, path: Path) -> None:
    """Keep logits for another process."""
    np.savez(path, *logits)


def largest_difference(reference: Path, logits: Logits) -> float:
    """Largest absolute difference between stored and other logits."""
    with np.load(reference) as stored:
        pairs = zip(stored.files, logits, strict=True)
        return max(float(np.abs(stored[name] - own).max()) for name, own in pairs)


def correlation(reference: Path, logits: Logits) -> float:
    """Correlation between stored and other logits: near 1 for the same model in another precision, near 0 for another one."""
    with np.load(reference) as stored:
        both = [np.concatenate([part.ravel() for part in parts]) for parts in ([stored[name] for name in stored.files], list(logits))]
    return float(np.corrcoef(both[0], both[1])[0, 1])


def answer_prompts(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[SamplePrompt]) -> list[Answer]:
    """Let the model answer, greedily, so that equal weights give equal answers."""
    answers = []
    model.eval()
    for prompt in prompts:
        ids = tokenizer(prompt.prompt, add_special_tokens=False, return_tensors="pt").input_ids[:, -MAX_PROMPT_TOKENS:]
        with torch.inference_mode():
            generated = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )
        text = tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)
        answers.append(Answer(split=prompt.split, prompt=prompt.prompt, expected=prompt.expected, answer=text))
    return answers
