"""TRL's trainer with what a run on Kubernetes needs beside it. Its loop is used as it is; each override says why it is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import DefaultFlowCallback, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.trainer_utils import load_sharded_checkpoint
from transformers.utils import SAFE_WEIGHTS_NAME
from trl import SFTConfig, SFTTrainer

from finetune_api.contract.store import Trigger
from finetune_trainer.worker import checkpoint, resume
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.evaluation import evaluate
from finetune_trainer.worker.loader import EpochBatches, Rows, make_loader
from finetune_trainer.worker.order import Share
from finetune_trainer.worker.rates import lower_rates
from finetune_trainer.worker.scores import score

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session


@dataclass(frozen=True)
class Material:
    """What is trained, and on what."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    evaluation: Dataset | None


class FineTuneTrainer(SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """One rank's trainer. Decisions are the :class:`Conductor`'s; this class only lets them reach the loop."""

    def __init__(self, session: Session, conductor: Conductor, material: Material, args: SFTConfig) -> None:
        self._session, self._conductor = session, conductor
        self._evaluation_rows = Rows(material.evaluation) if material.evaluation is not None else None
        self._hyperparameters: list[dict[str, Any]] = []
        model = material.model
        session.sharing.before_trainer()
        self._has_plain_head = not isinstance(model.get_output_embeddings(), BaseTunerLayer)
        with _adapter_on_head_allowed(model):
            super().__init__(
                model=model, args=args, train_dataset=material.train, processing_class=material.tokenizer, callbacks=[conductor]
            )
        # Logs, evaluations, saves and the end of training are the conductor's to decide; the stock flow reads its intervals
        # from the checkpoint, so edits of a stopped job would be ignored.
        self.remove_callback(DefaultFlowCallback)
        self.remove_callback(PrinterCallback)
        # The loss counts the tokens of the whole step, whatever the model's own forward takes.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = True
        self._flops_per_token = 6 * self.model.num_parameters(exclude_embeddings=True)

    @property
    def plain_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        optimizer: torch.optim.Optimizer = self.optimizer.optimizer
        return optimizer

    @property
    def cpu_group(self) -> torch.distributed.ProcessGroup | None:
        """The ranks' group on their CPUs."""
        return self._session.group.cpu

    @property
    def save_trigger(self) -> Trigger:
        """Why the save under way was decided."""
        return self._conductor.save_trigger

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank's share; stock ones depend on the number of ranks and repeat rows to fill the last batch."""
        spec, rank = self._session.spec, self._session.rank
        share = Share(rank.rank, rank.world_size, spec.training.batch_size, spec.training.grad_accum_steps)
        batches = EpochBatches(self._session.order, share)
        pin = spec.dataset.pin_memory and self.args.device.type == "cuda"
        return make_loader(self.train_dataset, batches, self.data_collator, workers=spec.dataset.num_workers, pin_memory=pin)

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
        counts = (scores.is_top1.sum(), scores.entropy.sum(), tokens)
        self._conductor.recorder.add_micro_batch(torch.stack([loss.detach().float(), *(value.float() for value in counts)]))
        return (loss, scores) if return_outputs else loss

    def forget_micro_batch(self) -> None:
        """Drop what was recorded of a micro-batch that is not part of the training."""
        self._conductor.recorder.forget_micro_batch()
        self._metrics["train"].clear()

    def _clip_grad_norm(self, model: torch.nn.Module) -> torch.Tensor:
        norm = super()._clip_grad_norm(model)
        # DeepSpeed, which has clipped already, gives a number; sharded gradients have a norm that is spread over the ranks.
        norm = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
        self._conductor.recorder.add_grad_norm(norm)
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count as the stock one does, without walking all parameters for each micro-batch."""
        return int(self._flops_per_token * inputs["input_ids"].numel())

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Evaluate per token and independent of ranks; the group may leave in the middle of it when it is told to stop."""
        assert self._evaluation_rows is not None, "an evaluation is due only where there is data for it"
        model = self._session.sharing.evaluation_model(self)
        model.eval()
        result = evaluate(self._session, self._evaluation_rows, self.args.per_device_eval_batch_size, self._score_rows)
        model.train()
        self._conductor.evaluated(self.control, self.state, result)
        return result.metrics if result is not None else {}

    @torch.no_grad()
    def _score_rows(self, rows: Sequence[Any]) -> torch.Tensor:
        inputs = self._prepare_inputs(self.data_collator(list(rows))) | self._router_options()
        return score(self._session.sharing.evaluation_model(self), inputs, fused=self._has_plain_head).sums().cpu()

    def _router_options(self) -> dict[str, bool]:
        return {"output_router_logits": True} if self.aux_loss_enabled else {}

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # The stock loop trains one step before it looks whether it should: a run resumed at its end would go past it.
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        """Write no card: TRL's lies beside the checkpoints, where nobody looks, and names a local path; the adapter has PEFT's."""

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create it as the stock one does, and keep what the spec says of each group before a checkpoint says something else."""
        is_new = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if is_new:
            lower_rates(scheduler, self._session.plan.rewinds)
        self._hyperparameters = resume.hyperparameters(self.optimizer)
        return scheduler

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002  # the base's
        """Write plain weights. Collective where the ranks share them."""
        directory = output_dir or self.args.output_dir
        self._session.sharing.save_model(self, directory, lambda: super(FineTuneTrainer, self).save_model(directory, _internal_call))

    def write_weights(self, directory: str, state: dict[str, Any] | None) -> None:
        """Write gathered weights (rank 0), or the model's own where it has them whole."""
        self._save(directory, state_dict=state)

    def load_plain_weights(self, directory: Path) -> None:
        """Load a checkpoint's weights into a model that is not shared out yet."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(str(directory))
        elif (directory / SAFE_WEIGHTS_NAME).is_file():
            self.model.load_state_dict(load_file(directory / SAFE_WEIGHTS_NAME), strict=False)
        else:
            load_sharded_checkpoint(self.model, str(directory), strict=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        # Over a 4-bit base TRL trains adapters in bfloat16, and PEFT loads them in float32: the resumed run would be another one.
        formats = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        self._session.sharing.load_checkpoint_weights(
            lambda: super(FineTuneTrainer, self)._load_from_checkpoint(resume_from_checkpoint, model)
        )
        for name, parameter in self.model.named_parameters():
            if name in formats and parameter.dtype != formats[name]:
                parameter.data = parameter.data.to(formats[name])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self._session.sharing.save_optimizer(
            self, Path(output_dir), lambda: super(FineTuneTrainer, self)._save_optimizer_and_scheduler(output_dir)
        )

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        with self._session.heartbeat.during("Saving"):
            checkpoint.save(self._session, self, lambda: super(FineTuneTrainer, self)._save_checkpoint(model, trial))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # The stock one goes on without a word when the file is missing.
        if checkpoint is not None and resume.has_random_state(self._session, Path(checkpoint), self.state.global_step):
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # The stock one brings back the old learning rate, decay and schedule: edits of a stopped job would be ignored.
        if checkpoint is not None:
            self._session.sharing.load_optimizer(self, Path(checkpoint))
            resume.restore_schedule(self.optimizer, self.lr_scheduler, self._hyperparameters, Path(checkpoint))


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
