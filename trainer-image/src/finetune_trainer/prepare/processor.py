"""The processor of a vision-language model: its tokenizer and what makes numbers of images, read from a local directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.vision import PROCESSOR_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


def load_processor(directory: Path, chat_template: str | None = None, *, runs_code: bool = False) -> Any:
    """Load the processor as any user of the model would, with the tokenizer that texts are prepared with.

    Its tokenizer pads, and both have the processor's chat template, or ``chat_template`` instead. Raises :class:`TrainerError` (ModelError)
    when the directory has none.
    """
    from transformers import AutoProcessor

    if not any((directory / name).is_file() for name in PROCESSOR_FILES):
        missing = f"a vision-language model needs its image processor, and there is none of {', '.join(PROCESSOR_FILES)}"
        raise TrainerError(FailureClass.MODEL, f"model.uri: {missing}")
    try:
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=runs_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise TrainerError(FailureClass.MODEL, f"model.uri: the processor in {directory.name} cannot be loaded: {reason}") from error
    tokenizer = load_tokenizer(directory, chat_template, runs_code=runs_code)
    template = chat_template or processor.chat_template or tokenizer.chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = processor.chat_template = template
    processor.tokenizer = tokenizer
    return processor


def replacements(processor: Any, text: str, images: Sequence[Image]) -> list[str]:
    """Return what the processor puts in the place of each image of a text: as many image tokens as the image has."""
    processed = processor(images=list(images), text=[text], return_text_replacement_offsets=True)
    return [found["replacement"] for found in processed["text_replacement_offsets"][0]]


def image_inputs(processor: Any, ids: Sequence[Sequence[int]], images: Sequence[Sequence[Image]]) -> dict[str, Any]:
    """Return what a model reads of a batch beside ids: pixels and their shapes, as tensors, and the kind of each token.

    The same as the processor's own call gives for the texts of the rows; ids that were cut or padded stay as they are.
    """
    inputs: dict[str, Any] = {}
    if any(images):
        flat = [image for row in images for image in row]
        inputs |= dict(processor.image_processor(flat, return_tensors="pt").items())
    if processor.return_mm_token_type_ids:
        inputs["mm_token_type_ids"] = processor.create_mm_token_type_ids([list(row) for row in ids])
    return {name: value for name, value in inputs.items() if name not in processor.unused_input_names}
