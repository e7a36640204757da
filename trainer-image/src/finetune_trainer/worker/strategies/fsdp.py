"""PyTorch's fully sharded data parallelism (FSDP2): weights, gradients and optimizer are split over the ranks, layer by layer.

A checkpoint holds plain weights, gathered by rank 0, and the optimizer in parts, one per rank, which another number of ranks can read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from peft import PeftModel
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.worker.precision import Formats
from finetune_trainer.worker.strategies.base import Sharing, Stock

if TYPE_CHECKING:
    from finetune_trainer.worker.trainer import FineTuneTrainer

OPTIMIZER_DIRECTORY: Final = "optimizer_0"


@dataclass(frozen=True)
class FullySharded(Sharing):
    """FSDP2 through accelerate."""

    @property
    def gathers_nothing(self) -> bool:
        """Each rank has its part of the optimizer."""
        return False

    @property
    def places_model(self) -> bool:
        """Weights are put onto the GPUs in shards."""
        return True

    def arguments(self, spec: FineTuneJobSpec, formats: Formats) -> dict[str, Any]:
        """Return the arguments that have accelerate shard each transformer layer."""
        return {"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": True, "state_dict_type": "FULL_STATE_DICT"}}

    def before_trainer(self) -> None:
        """Have accelerate shard on CPUs as well: without a GPU in sight it would run DDP without a word."""
        state = PartialState()
        if state.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU  # noqa: SLF001  # there is no public way

    def load_weights(self, trainer: FineTuneTrainer, directory: Path) -> None:
        """Load plain weights before they are sharded, as any single process would."""
        trainer.load_plain_weights(directory)

    def load_checkpoint_weights(self, stock: Stock) -> None:
        """Nothing is left to do: the weights were loaded before they were sharded."""

    def save_model(self, trainer: FineTuneTrainer, directory: str, stock: Stock) -> None:
        """Gather the weights that were trained on rank 0, one after the other, and write them in the plain format."""
        is_adapter = isinstance(trainer.model, PeftModel)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=is_adapter)
        trainer.write_weights(directory, get_model_state_dict(trainer.model, options=options))

    def save_optimizer(self, trainer: FineTuneTrainer, directory: Path, stock: Stock) -> None:
        """Write this rank's part of the optimizer; rank 0 adds the table of contents and the scheduler."""
        directory.mkdir(parents=True, exist_ok=True)
        state = get_optimizer_state_dict(trainer.model, trainer.plain_optimizer, options=StateDictOptions(cpu_offload=True))
        writer = FileSystemWriter(directory / OPTIMIZER_DIRECTORY)
        save({"optimizer": state}, storage_writer=writer, process_group=trainer.cpu_group)
        if trainer.args.should_save:
            torch.save(trainer.lr_scheduler.state_dict(), directory / "scheduler.pt")

    def load_optimizer(self, trainer: FineTuneTrainer, directory: Path) -> None:
        """Read this rank's part, whatever number of ranks wrote it."""
        optimizer = trainer.plain_optimizer
        state = {"optimizer": get_optimizer_state_dict(trainer.model, optimizer)}
        load(state, storage_reader=FileSystemReader(directory / OPTIMIZER_DIRECTORY), process_group=trainer.cpu_group)
        set_optimizer_state_dict(trainer.model, optimizer, state["optimizer"])

    def optimizer_files(self) -> tuple[str, ...]:
        """Return the table of contents of the optimizer's parts."""
        return (f"{OPTIMIZER_DIRECTORY}/.metadata",)

    def local_part(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return this rank's shard."""
        return parameter.to_local() if isinstance(parameter, DTensor) else parameter

    def is_split(self, parameter: torch.nn.Parameter, ranks: int) -> bool:
        """Whether a parameter is sharded over as many ranks."""
        if not isinstance(parameter, DTensor):
            return False
        return parameter.device_mesh.size() == ranks and all(placement.is_shard() for placement in parameter.placements)
