"""What a worker does otherwise for a vision-language model: rows with images, batches with pixels, frozen parts, where an adapter sits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset, load_from_disk
from peft import LoraConfig
from PIL import Image
from transformers import PreTrainedModel

from finetune_trainer.prepare.images import decode
from finetune_trainer.prepare.processor import image_inputs
from finetune_trainer.targets import ALL_LINEAR
from finetune_trainer.vision import VISION_PATTERN, is_vision
from finetune_trainer.worker.loader import IGNORED, Row, Rows

IMAGES: Final = "images"
BLANK_SIDE: Final = 112
"""Pixels of the side of the image that stands for none: a multiple of every known patch, with their merging."""


def load_images(prepared_dir: Path) -> Dataset | None:
    """Open the table of images; None where no row has any."""
    directory = prepared_dir / IMAGES
    if not directory.is_dir():
        return None
    images = load_from_disk(directory)
    assert isinstance(images, Dataset)
    return images


class SightRows(Rows):
    """Prepared rows by index, with the bytes of their images."""

    def __init__(self, dataset: Dataset, images: Dataset | None) -> None:
        super().__init__(dataset)
        self._images = images

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        if not indices:
            return [{"input_ids": [0, 0], "labels": [IGNORED, IGNORED], IMAGES: []}]
        return [{**row, IMAGES: [self._content(at) for at in row[IMAGES]]} for row in super().__getitems__(indices)]

    def _content(self, image: int) -> bytes:
        assert self._images is not None, "rows name images only where there is a table of them"
        content: bytes = self._images[image]["content"]
        return content


class SightCollator:
    """Makes a batch of rows: padded ids, and what the model sees.

    With ``always_sees`` a batch without images gets one row more, of which nothing is learnt, with a grey image: where the vision part is
    trained, or shared out over ranks, it must take part in every pass of every rank.
    """

    def __init__(self, processor: Any, *, always_sees: bool) -> None:
        self._processor, self._always_sees = processor, always_sees
        self._pad = int(processor.tokenizer.pad_token_id)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Collate rows of :class:`SightRows`."""
        images = [[decode(content) for content in row[IMAGES]] for row in rows]
        ids, labels = [row["input_ids"] for row in rows], [row["labels"] for row in rows]
        if self._always_sees and not any(images):
            blank = self._blank_ids()
            images, ids, labels = [*images, [_blank()]], [*ids, blank], [*labels, [IGNORED] * len(blank)]
        longest = max(map(len, ids))
        padded = _padded(ids, longest, self._pad)
        batch = {
            "input_ids": torch.tensor(padded),
            "attention_mask": torch.tensor(_padded([[1] * len(row) for row in ids], longest, 0)),
            "labels": torch.tensor(_padded(labels, longest, IGNORED)),
        }
        seen = image_inputs(self._processor, padded, images)
        return batch | {name: torch.as_tensor(value) for name, value in seen.items()}

    def _blank_ids(self) -> list[int]:
        ids: Sequence[Sequence[int]] = self._processor(images=[_blank()], text=[self._processor.image_token])["input_ids"]
        return [self._pad, *ids[0]]


def freeze_vision(model: PreTrainedModel) -> None:
    """Leave vision tower and projector as they are: no gradient reaches them (AC-34)."""
    for name, parameter in model.named_parameters():
        if is_vision(name):
            parameter.requires_grad_(requires_grad=False)


def restrict_to_language(config: LoraConfig) -> None:
    """Keep an adapter off the vision part, whatever it targets (OP-17)."""
    own = config.exclude_modules
    patterns = [own] if isinstance(own, str) else [rf"(?:.*\.)?{re.escape(name)}" for name in sorted(own or ())]
    config.exclude_modules = "|".join(f"(?:{pattern})" for pattern in (rf"{VISION_PATTERN}.*", *patterns))


def extend_to_vision(config: LoraConfig, model: PreTrainedModel) -> None:
    """Put an adapter on the named modules of the language part, and on every linear layer of the vision part.

    Vision towers name their layers otherwise than language models do, so that the names alone would leave them out.
    """
    wanted = config.target_modules
    if wanted == ALL_LINEAR or isinstance(wanted, str) or wanted is None:
        return
    language = rf"(?!{VISION_PATTERN})(?:.*\.)?(?:{'|'.join(re.escape(name) for name in sorted(wanted))})"
    config.target_modules = rf"{language}|{VISION_PATTERN}(?:{'|'.join(_vision_layers(model))})"


def trained_parts(model: torch.nn.Module) -> str:
    """Which parts have parameters that are trained: ``language``, ``vision``, or both."""
    found = {
        "vision" if is_vision(_plain_name(name)) else "language" for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    return ", ".join(sorted(found))


def _vision_layers(model: PreTrainedModel) -> list[str]:
    """Patterns of the names of the vision part's linear layers, below its tower or projector: one for all blocks where that is right."""
    below = re.compile(f"^{VISION_PATTERN}")
    modules = {below.sub("", name): isinstance(module, torch.nn.Linear) for name, module in model.named_modules() if is_vision(name)}
    found: set[str] = set()
    for name in (name for name, is_linear in modules.items() if is_linear):
        pattern = re.sub(r"(?<=\.)\d+(?=\\\.|$)", r"\\d+", re.escape(name))
        also = (is_linear for other, is_linear in modules.items() if re.fullmatch(pattern, other))
        found.add(pattern if all(also) else re.escape(name))
    return sorted(found)


def _plain_name(name: str) -> str:
    """Name of a parameter in the base model, without what PEFT puts before it."""
    return name.removeprefix("base_model.model.")


def _blank() -> Image.Image:
    return Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), (128, 128, 128))


def _padded(rows: Sequence[Sequence[int]], length: int, value: int) -> list[list[int]]:
    return [[*row, *[value] * (length - len(row))] for row in rows]
