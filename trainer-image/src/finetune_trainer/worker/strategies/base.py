"""What a strategy has to answer; answered here for whole copies on every rank (none, ddp), which is what the stock Trainer does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.strategies import SHARDS_WEIGHTS, Strategy
from finetune_trainer.worker.precision import Formats

if TYPE_CHECKING:
    from finetune_trainer.worker.trainer import FineTuneTrainer

Stock = Callable[[], None]
"""What the stock Trainer would do."""


@dataclass(frozen=True)
class Sharing:
    """One way of sharing a training among ranks."""

    name: Strategy

    @property
    def shards_weights(self) -> bool:
        """All ranks must run forward passes, and gather weights, together."""
        return self.name in SHARDS_WEIGHTS

    @property
    def needs_group(self) -> bool:
        """The libraries want a process group even for a single rank."""
        return False

    @property
    def gathers_nothing(self) -> bool:
        """Rank 0 has weights and optimizer whole: it writes them without its peers."""
        return True

    @property
    def places_model(self) -> bool:
        """Weights are loaded where the library wants them, not straight onto this rank's GPU."""
        return False

    @property
    def needs_one_dtype(self) -> bool:
        """All parameters, adapters too, must have one number format."""
        return False

    def arguments(self, spec: FineTuneJobSpec, formats: Formats) -> dict[str, Any]:
        """Return the Trainer's arguments beside those of the spec."""
        return {}

    def before_model(self) -> None:
        """Run between the arguments and the model."""

    def before_trainer(self) -> None:
        """Run between the model and the Trainer."""

    def after_trainer(self, model: torch.nn.Module) -> None:
        """Run between the Trainer and its training.

        DDP leaves frozen weights alone: it would send rank 0's to all ranks, which have read the same files, and write over pages that
        ranks on CPUs share.
        """
        if self.name == "ddp":
            frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
            ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model  # noqa: SLF001  # there is no public way
            ignore(model, frozen)  # type: ignore[no-untyped-call]  # torch's own

    def load_weights(self, trainer: FineTuneTrainer, directory: Path) -> None:
        """Run before training, for strategies whose weights cannot be loaded once they are shared out."""

    def load_checkpoint_weights(self, stock: Stock) -> None:
        """Load weights where the Trainer does."""
        stock()

    def save_model(self, trainer: FineTuneTrainer, directory: str, stock: Stock) -> None:
        """Write plain weights, adapter or model."""
        stock()

    def save_optimizer(self, trainer: FineTuneTrainer, directory: Path, stock: Stock) -> None:
        """Write optimizer and scheduler."""
        stock()

    def load_optimizer(self, trainer: FineTuneTrainer, directory: Path) -> None:
        """Bring back the optimizer's moments; rates and decay are set by the caller."""
        optimizer = trainer.optimizer
        optimizer.load_state_dict(torch.load(directory / "optimizer.pt", map_location="cpu", weights_only=True))

    def optimizer_files(self) -> tuple[str, ...]:
        """Return files without which a checkpoint cannot be resumed."""
        return ("optimizer.pt",)

    def evaluation_model(self, trainer: FineTuneTrainer) -> torch.nn.Module:
        """Return the model that evaluation runs."""
        model: torch.nn.Module = trainer.model
        return model

    def local_weights(self, model: torch.nn.Module) -> Iterator[torch.Tensor]:
        """Yield what this rank holds of the trained parameters."""
        return (self.local_part(p).detach() for p in model.parameters() if p.requires_grad)

    def local_part(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return what this rank holds of a parameter."""
        return parameter

    def is_split(self, parameter: torch.nn.Parameter, ranks: int) -> bool:
        """Whether a parameter lies in parts on ``ranks`` ranks."""
        return False

    def parameter_count(self, parameter: torch.nn.Parameter) -> int:
        """Return the number of values of a parameter over all ranks."""
        return parameter.numel()
