"""What a run on Kubernetes needs of any TRL trainer. TRL's loops are used as they are; each override says why it is there.

:class:`FineTuneTrainer` is mixed in before TRL's class of the method (:mod:`finetune_trainer.worker.methods`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import DefaultFlowCallback, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProcessorMixin
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.trainer_utils import load_sharded_checkpoint
from transformers.utils import SAFE_WEIGHTS_NAME

from finetune_api.contract.store import Trigger
from finetune_trainer.worker import checkpoint, resume
from finetune_trainer.worker.behind import Copies, Writing
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.evaluation import Evaluation, evaluate_batches
from finetune_trainer.worker.loader import EpochBatches, Rows, TokenisedLater, make_loader
from finetune_trainer.worker.order import Share, Shares
from finetune_trainer.worker.rates import lower_rates
from finetune_trainer.worker.unchanging import SavedOnce, forget_card

if TYPE_CHECKING:
    from transformers import Trainer as Stock

    from finetune_trainer.worker.session import Session
else:
    Stock = object

REFERENCE: Final = "ref"
"""TRL's name for the adapter it compares with."""
NOT_METRICS: Final = frozenset({"num_tokens", "step_time"})
"""Numbers TRL logs that the recorder has better (they restart with each attempt), or that are no property of the training."""


@dataclass(frozen=True)
class Material:
    """What is trained, and on what."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin
    """A processor where the model sees images."""
    train: Dataset
    evaluation: Dataset | None
    images: Dataset | None = None
    """Those that rows show."""
    later_train: TokenisedLater | None = None
    """Where training rows come from instead of ``train``."""
    later_evaluation: TokenisedLater | None = None


class FineTuneTrainer(Stock):  # type: ignore[misc]  # transformers is not typed
    """One rank's trainer. Decisions are the :class:`Conductor`'s; this class only lets them reach the loop."""

    rows_class: Callable[[Dataset], Rows] = Rows
    """How prepared rows are read."""

    def __init__(self, session: Session, conductor: Conductor, material: Material, **options: Any) -> None:
        """``options`` are for TRL's own class: ``args``, reference model, reward functions."""
        self._session, self._conductor = session, conductor
        self._evaluation_rows: Rows | None
        self._evaluation_rows = material.later_evaluation
        if self._evaluation_rows is None and material.evaluation is not None:
            self._evaluation_rows = self.rows_class(material.evaluation)
        self.later_rows = material.later_train
        self._hyperparameters: list[dict[str, Any]] = []
        self._copies = Copies()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="checkpoint")
        self._writes_small_files_only = False
        session.sharing.before_trainer()
        super().__init__(
            model=material.model, train_dataset=material.train, processing_class=material.tokenizer, callbacks=[conductor], **options
        )
        if self.accelerator.scaler is not None or self.model.dtype == torch.float32:
            train_in_float32(self.model)
        # Logs, evaluations, saves and the end of training are the conductor's to decide; the stock flow reads its intervals
        # from the checkpoint, so edits of a stopped job would be ignored.
        self.remove_callback(DefaultFlowCallback)
        self.remove_callback(PrinterCallback)
        beside = session.plan.output_dir.with_name(f"{session.plan.output_dir.name}-tokenizer")
        self.processing_class.save_pretrained = SavedOnce(self.processing_class, beside)
        if isinstance(self.model, PeftModel):
            forget_card(self.model)
        self._flops_per_token = 6 * self.model.num_parameters(exclude_embeddings=True)

    @property
    def session(self) -> Session:
        """What the parts of this worker share."""
        return self._session

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

    @property
    def step_tokens(self) -> int | None:
        """Tokens all ranks read for the step that ends, where they are more than the rows have."""
        return None

    def take_metrics(self, mode: str) -> dict[str, float]:
        """Return the means of TRL's own numbers since the last call (``train`` or ``eval``), alike on all ranks, and forget them.

        Taken after each step, they need no place in a checkpoint.
        """
        collected = self._metrics[mode]
        means = {}
        for name, values in collected.items():
            finite = [value for value in values if math.isfinite(value)]
            if finite and name not in NOT_METRICS:
                means[name] = sum(finite) / len(finite)
        collected.clear()
        return means

    def shares(self) -> Shares:
        """Return how rows are split among ranks."""
        spec, rank = self._session.spec, self._session.rank
        return Share(rank.rank, rank.world_size, spec.training.batch_size, spec.training.grad_accum_steps)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this rank's share; stock ones depend on the number of ranks and repeat rows to fill the last batch."""
        spec = self._session.spec
        batches = EpochBatches(self._session.order, self.shares())
        pin = spec.dataset.pin_memory and self.args.device.type == "cuda"
        rows = self.later_rows if self.later_rows is not None else self.rows_class(self.train_dataset)
        return make_loader(rows, batches, self.data_collator, workers=spec.dataset.num_workers, pin_memory=pin)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Train a micro-batch and record its loss, which the stock loop has scaled by the number of them."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.record_micro_batch(loss)
        return loss

    def record_micro_batch(self, loss: torch.Tensor) -> None:
        """Hand the loss of a micro-batch to the recorder, on the device."""
        nothing = torch.zeros((), device=loss.device)
        self._conductor.recorder.add_micro_batch(torch.stack([loss.detach().float(), nothing, nothing, nothing, nothing]))

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

    def floating_point_ops(self, inputs: Any) -> int:
        """Count as the stock one does, without walking all parameters for each micro-batch."""
        tokens = inputs["input_ids"].numel() if "input_ids" in inputs else 0
        return int(self._flops_per_token * tokens)

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Evaluate all rows; the group may leave in the middle of it when it is told to stop."""
        assert self._evaluation_rows is not None, "an evaluation is due only where there is data for it"
        model = self._session.sharing.evaluation_model(self)
        model.eval()
        result = self.run_evaluation(self._evaluation_rows)
        model.train()
        self._conductor.evaluated(self.control, self.state, result)
        return result.metrics if result is not None else {}

    def run_evaluation(self, rows: Rows) -> Evaluation | None:
        """Evaluate with the model in evaluation mode; None when the group stops."""
        size = self.args.per_device_eval_batch_size
        return evaluate_batches(self._session, rows, size, self._batch_loss, lambda: self.take_metrics("eval"))

    def _batch_loss(self, rows: Any) -> float:
        model = self._session.sharing.evaluation_model(self)
        loss, _, _ = self.prediction_step(model, self.data_collator(list(rows)), prediction_loss_only=True)
        return float(loss)

    def _prepare_dataset(self, dataset: Dataset, *_args: Any, **_kwargs: Any) -> Dataset:
        # Rows arrive prepared.
        return dataset

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
        if self._writes_small_files_only:
            return
        self._session.sharing.save_model(self, directory, lambda: super(FineTuneTrainer, self).save_model(directory, _internal_call))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with _without_reference(self.accelerator.unwrap_model(self.model)):
            super()._save(output_dir, state_dict=state_dict)

    def write_weights(self, directory: str, state: dict[str, Any] | None) -> None:
        """Write gathered weights (rank 0), or the model's own where it has them whole."""
        self._save(directory, state_dict=state)

    @property
    def _is_stored_otherwise(self) -> bool:
        """Whether the files of a whole model name or split its weights otherwise than the loaded model does."""
        return not isinstance(self.model, PeftModel) and bool(get_model_conversion_mapping(self.model, add_legacy=False))

    def load_plain_weights(self, directory: Path) -> None:
        """Load a checkpoint's weights into a model that is not shared out yet."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(str(directory))
        elif self._is_stored_otherwise:
            # By the stored names nothing would be found, and nobody would be told.
            stored = type(self.model).from_pretrained(directory, dtype=self.model.dtype, local_files_only=True)
            self.model.load_state_dict(stored.state_dict())
        elif (directory / SAFE_WEIGHTS_NAME).is_file():
            # As they lie in the file: in the format they were trained in, which need not be the base's, and mapped once for all ranks.
            self.model.load_state_dict(load_file(directory / SAFE_WEIGHTS_NAME), strict=False, assign=True)
            self.model.tie_weights()
        else:
            load_sharded_checkpoint(self.model, str(directory), strict=False)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        # Over a 4-bit base TRL trains adapters in bfloat16, and PEFT loads them in float32: the resumed run would be another one.
        formats = {name: p.dtype for name, p in self.model.named_parameters() if p.requires_grad}
        self._session.sharing.load_checkpoint_weights(
            lambda: (
                self.load_plain_weights(Path(resume_from_checkpoint))
                if self._is_stored_otherwise
                else super(FineTuneTrainer, self)._load_from_checkpoint(resume_from_checkpoint, model)
            )
        )
        for name, parameter in self.model.named_parameters():
            if name in formats and parameter.dtype != formats[name]:
                parameter.data = parameter.data.to(formats[name])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._writes_small_files_only:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")
            return
        self._session.sharing.save_optimizer(
            self, Path(output_dir), lambda: super(FineTuneTrainer, self)._save_optimizer_and_scheduler(output_dir)
        )

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        with self._session.heartbeat.during("Saving"):
            checkpoint.save(self._session, self, lambda: self._write_checkpoint(model, trial))

    def _write_checkpoint(self, model: torch.nn.Module, trial: object) -> Writing | None:
        """Write the stock one's files; return the large ones, to be begun, where rank 0 has them whole and there is memory for a copy."""
        copied = self._copied_state() if self.args.should_save and self._session.sharing.gathers_nothing else None
        if copied is None:
            super()._save_checkpoint(model, trial)
            return None
        directory = checkpoint.directory_of(self._session, self.state.global_step)
        directory.mkdir(parents=True, exist_ok=True)
        self._writes_small_files_only = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_small_files_only = False
        return Writing(
            self._threads,
            [
                lambda: self.write_weights(str(directory), copied["weights"]),
                lambda: torch.save(copied["optimizer"], directory / "optimizer.pt"),
            ],
        )

    def _copied_state(self) -> dict[str, Any] | None:
        """Copy weights and optimizer as they are now; None where there is no memory for that. What is frozen need not be copied."""
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        if isinstance(self.model, PeftModel):  # whose state_dict would pack a base in 4 bits anew each time
            weights = {name: parameter.detach() for name, parameter in parameters.items()}
        else:
            weights = dict(self.model.state_dict())
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        changing = {name: tensor for name, tensor in weights.items() if name not in frozen}
        copied = self._copies.take({"weights": changing, "optimizer": self.optimizer.state_dict()})
        return None if copied is None else {**copied, "weights": {**weights, **copied["weights"]}}

    def save_rank_state(self, directory: Path) -> None:
        """Write what this rank alone knows and a resumed run needs (``finetune_rank_<rank>.*``) into a checkpoint."""

    def load_rank_state(self, directory: Path) -> None:
        """Take over what :meth:`save_rank_state` wrote; called once, after the optimizer is loaded."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # The stock one goes on without a word when the file is missing.
        if checkpoint is not None and resume.has_random_state(self._session, Path(checkpoint), self.state.global_step):
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # The stock one brings back the old learning rate, decay and schedule: edits of a stopped job would be ignored.
        if checkpoint is not None:
            self._session.sharing.load_optimizer(self, Path(checkpoint))
            resume.restore_schedule(self.optimizer, self.lr_scheduler, self._hyperparameters, Path(checkpoint))
            self.load_rank_state(Path(checkpoint))


def train_in_float32(model: torch.nn.Module) -> None:
    """Hold what is trained in float32: where a model is, and where a gradient scaler is used, for CUDA's cannot unscale half precision.

    Over a 4-bit base TRL trains adapters, and the head of a reward model, in bfloat16 whatever the model computes in; what PEFT trains
    whole beside an adapter keeps the base's format.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def settle_reference(trainer: Any) -> None:
    """Keep or drop the copy of the adapter that TRL makes as its reference.

    A new adapter changes nothing of the model, so its reference is the model without it. Of an attached one the copy is the reference:
    it is what training began with, so it is made anew at each start and lies in no checkpoint.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    if REFERENCE not in getattr(model, "peft_config", {}):
        return
    if trainer.session.plan.attached_dir is None:
        model.delete_adapter(REFERENCE)
        return
    own = dict(model.named_parameters())
    for name, parameter in own.items():
        if f".{REFERENCE}." in name:
            parameter.requires_grad = False
            parameter.data = parameter.data.to(own[name.replace(f".{REFERENCE}.", ".default.")].dtype)


@contextmanager
def _without_reference(model: Any) -> Iterator[None]:
    """Save the trained adapter alone."""
    if REFERENCE not in getattr(model, "peft_config", {}):
        yield
        return
    stock = model.save_pretrained
    model.save_pretrained = lambda *args, **options: stock(*args, **options, selected_adapters=["default"])
    try:
        yield
    finally:
        del model.save_pretrained
