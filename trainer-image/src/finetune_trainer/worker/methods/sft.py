"""Methods sft and pretrain: the mean loss per token, without TRL's collectives and host reads for each micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, ProcessorMixin
from trl import SFTConfig, SFTTrainer

from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.evaluation import Evaluation, evaluate
from finetune_trainer.worker.loader import Rows
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.scores import score
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.sight import SightCollator, SightRows
from finetune_trainer.worker.trainer import FineTuneTrainer, Material


class TokenTrainer(FineTuneTrainer, SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """Learns sequences of tokens."""

    def __init__(self, session: Session, conductor: Conductor, material: Material, **options: Any) -> None:
        model, words = material.model, material.tokenizer
        self._has_plain_head = not isinstance(model.get_output_embeddings(), BaseTunerLayer)
        if isinstance(words, ProcessorMixin):
            self.rows_class = partial(SightRows, images=material.images)
            always_sees = session.model_type == "VLM" or session.sharing.shards_weights
            options["data_collator"] = SightCollator(words, always_sees=always_sees)
        with _adapter_on_head_allowed(model):
            super().__init__(session, conductor, material, **options)
        # The loss counts the tokens of the whole step, whatever the model's own forward takes.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True

    def take_metrics(self, _mode: str) -> dict[str, float]:
        """Nothing: the recorder counts tokens and their scores itself."""
        return {}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002  # the base class's signature
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Compute TRL's loss without its four collectives and host reads per micro-batch; the recorder reads the same numbers later."""
        scores = score(model, inputs | self._router_options(), fused=self._has_plain_head)
        tokens = scores.label_mask.sum()
        total = tokens if num_items_in_batch is None else num_items_in_batch
        # num_items_in_batch counts the tokens of all ranks, and DDP averages gradients over them.
        loss = -scores.log_probs.sum() / torch.as_tensor(total).clamp(min=1) * self._session.rank.world_size
        if scores.aux_loss is not None:
            loss = loss + self.router_aux_loss_coef * scores.aux_loss / self.current_gradient_accumulation_steps
        mask = inputs.get("attention_mask")
        read = mask.sum() if mask is not None else tokens.new_tensor(inputs["input_ids"].numel())
        counts = (scores.is_top1.sum(), scores.entropy.sum(), tokens, read)
        self._conductor.recorder.add_micro_batch(torch.stack([loss.detach().float(), *(value.float() for value in counts)]))
        return (loss, scores) if return_outputs else loss

    def record_micro_batch(self, loss: torch.Tensor) -> None:
        """Nothing: :meth:`compute_loss` has recorded it with its counts."""

    def run_evaluation(self, rows: Rows) -> Evaluation | None:
        """Evaluate per token and independent of ranks."""
        return evaluate(self._session, rows, self.args.per_device_eval_batch_size, self._score_rows)

    @torch.no_grad()
    def _score_rows(self, rows: Sequence[Any]) -> torch.Tensor:
        inputs = self._prepare_inputs(self.data_collator(list(rows))) | self._router_options()
        return score(self._session.sharing.evaluation_model(self), inputs, fused=self._has_plain_head).sums().cpu()

    def _router_options(self) -> dict[str, bool]:
        return {"output_router_logits": True} if self.aux_loss_enabled else {}


def make_arguments(session: Session, common: dict[str, Any]) -> SFTConfig:
    """Build TRL's arguments.

    Rows arrive tokenised, cut and packed; packing here only chooses the collator that keeps packed rows apart.
    """
    own = common | {
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "packing": session.spec.dataset.packing,
        "eval_packing": False,
    }
    return SFTConfig(**with_extra_arguments(own, session.spec.training.extra_args))


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer."""
    return TokenTrainer(request.session, request.conductor, request.material, args=request.args)


@contextmanager
def _adapter_on_head_allowed(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Let TRL take a model with an adapter on ``lm_head``.

    TRL refuses it because its fused head reads the base weights alone; such a model is scored from full logits here instead.
    """
    if not isinstance(model.get_output_embeddings(), BaseTunerLayer):
        yield
        return
    model.get_output_embeddings = lambda: None
    try:
        yield
    finally:
        del model.get_output_embeddings
