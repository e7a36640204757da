"""What all rows of a job are prepared with: tokenizer, limits, wrapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.models.sources import DataSource
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.examples import Example, read_example
from finetune_trainer.prepare.images import Images, ImageStore
from finetune_trainer.prepare.processor import load_processor
from finetune_trainer.prepare.purpose import purpose_of
from finetune_trainer.prepare.reading import Reader, ReadRow
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.table import SCHEMAS, SIGHT_SCHEMA
from finetune_trainer.prepare.tokenizer import load_tokenizer, model_context, refuse_own_code, sequence_length
from finetune_trainer.prepare.tokens import Encoder, Limits
from finetune_trainer.prepare.vision import SightEncoder
from finetune_trainer.prepare.wrapping import Wrapping

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from transformers import PreTrainedTokenizerBase

BATCH, SIGHT_BATCH = 256, 16
"""Rows encoded at once: one call of the tokenizer, and the images that are held decoded."""


@dataclass(frozen=True)
class Preparation:
    """Everything between a raw row and its tokens."""

    spec: FineTuneJobSpec
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    wrapping: Wrapping
    limit: int
    """Longest sequence in tokens."""
    images: Images | None = None
    """Takes the images of rows for a vision-language model."""
    context: int | None = None
    """Tokens the model was made for, where its config.json says so."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of encoded rows."""
        return SCHEMAS[purpose_of(self.spec)] if self.images is None else SIGHT_SCHEMA

    @property
    def batch(self) -> int:
        """Rows to encode at once."""
        return BATCH if self.images is None else SIGHT_BATCH

    def reader(self, source: DataSource, rejects: Rejects) -> Reader:
        """A reader of one source."""
        return Reader(source, self.spec.builtin_method, self.wrapping, rejects, self.images)

    def example(self, row: ReadRow) -> tuple[str, Example]:
        """What the encoder takes of a row."""
        return row.raw.where, read_example(row.canonical, purpose_of(self.spec), assistant_only_loss=self.spec.dataset.assistant_only_loss)


def open_preparation(spec: FineTuneJobSpec, tokenizer_dir: Path, images: ImageStore | None = None) -> Preparation:
    """Load the tokenizer, or the processor where ``images`` says that the model sees, and work out the limits.

    Raises :class:`TrainerError`: ModelError without a usable one, ConfigurationError for lengths, templates and code of the model's own
    that may not be run.
    """
    dataset, runs_code = spec.dataset, spec.model.trust_remote_code
    if spec.model.tokenizer is None and not runs_code:
        refuse_own_code(tokenizer_dir)
    processor = load_processor(tokenizer_dir, dataset.chat_template, runs_code=runs_code) if images is not None else None
    tokenizer = processor.tokenizer if processor is not None else load_tokenizer(tokenizer_dir, dataset.chat_template, runs_code=runs_code)
    limit = sequence_length(spec, tokenizer, tokenizer_dir)
    limits = Limits.of(spec, limit)
    encoder = Encoder(tokenizer, limits) if images is None else SightEncoder(processor, limits, images)
    wrapping = Wrapping.of(dataset, has_chat_template=bool(tokenizer.chat_template))
    return Preparation(spec, tokenizer, encoder, wrapping, limit, images, model_context(tokenizer_dir))
