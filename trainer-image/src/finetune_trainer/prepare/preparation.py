"""What all rows of a job are prepared with: tokenizer, limits, wrapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.models.sources import DataSource
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.prepare.examples import Example, read_example
from finetune_trainer.prepare.purpose import purpose_of
from finetune_trainer.prepare.reading import Reader, ReadRow
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.tokenizer import load_tokenizer, refuse_own_code, sequence_length
from finetune_trainer.prepare.tokens import Encoder, Limits
from finetune_trainer.prepare.wrapping import Wrapping

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Preparation:
    """Everything between a raw row and its tokens."""

    spec: FineTuneJobSpec
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    wrapping: Wrapping
    limit: int
    """Longest sequence in tokens."""

    def reader(self, source: DataSource, rejects: Rejects) -> Reader:
        """A reader of one source."""
        return Reader(source, self.spec.builtin_method, self.wrapping, rejects)

    def example(self, row: ReadRow) -> tuple[str, Example]:
        """What the encoder takes of a row."""
        return row.raw.where, read_example(row.canonical, purpose_of(self.spec), assistant_only_loss=self.spec.dataset.assistant_only_loss)


def open_preparation(spec: FineTuneJobSpec, tokenizer_dir: Path) -> Preparation:
    """Load the tokenizer and work out the limits.

    Raises :class:`TrainerError`: ModelError without a usable tokenizer, ConfigurationError for lengths, templates and code of the model's
    own that may not be run.
    """
    dataset = spec.dataset
    if spec.model.tokenizer is None and not spec.model.trust_remote_code:
        refuse_own_code(tokenizer_dir)
    tokenizer = load_tokenizer(tokenizer_dir, dataset.chat_template, runs_code=spec.model.trust_remote_code)
    limit = sequence_length(spec.training.max_seq_length, tokenizer, tokenizer_dir)
    encoder = Encoder(tokenizer, Limits.of(spec, limit))
    wrapping = Wrapping.of(dataset, has_chat_template=bool(tokenizer.chat_template))
    return Preparation(spec, tokenizer, encoder, wrapping, limit)
