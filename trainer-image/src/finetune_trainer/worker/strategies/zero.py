"""DeepSpeed ZeRO 1 to 3, with and without offload to main memory; needs no compiler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.worker.precision import Formats
from finetune_trainer.worker.strategies.base import Sharing, Stock

if TYPE_CHECKING:
    from finetune_trainer.worker.trainer import FineTuneTrainer


@dataclass(frozen=True)
class Zero(Sharing):
    """The optimizer (1), gradients (2) and weights (3) are split over the ranks; ``_offload`` keeps them in main memory."""

    @property
    def stage(self) -> int:
        """ZeRO's stage."""
        return int(self.name.removeprefix("zero")[0])

    @property
    def is_offloaded(self) -> bool:
        """Optimizer states, and with stage 3 weights, live in main memory."""
        return self.name.endswith("_offload")

    @property
    def gathers_nothing(self) -> bool:
        """Each rank has its part of the optimizer."""
        return False

    @property
    def needs_group(self) -> bool:
        """DeepSpeed always wants a group."""
        return True

    @property
    def places_model(self) -> bool:
        """Stage 3 splits the weights while they are loaded."""
        return self.stage == 3

    @property
    def needs_one_dtype(self) -> bool:
        """Stage 3 gathers small parameters together, in the format of the first; float32 copies of what is trained are its own anyway."""
        return self.stage == 3

    def arguments(self, spec: FineTuneJobSpec, formats: Formats) -> dict[str, Any]:
        """Return DeepSpeed's configuration; in half precision it keeps float32 master weights itself, so that autocast is off."""
        on_gpu = spec.resources.device == "gpu"
        zero: dict[str, Any] = {"stage": self.stage, "contiguous_gradients": True}
        if not on_gpu:
            zero["overlap_comm"] = False
        if self.stage == 3:
            zero["stage3_gather_16bit_weights_on_model_save"] = True
        if self.is_offloaded:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
            if self.stage == 3:
                zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
        config = {
            "zero_optimization": zero,
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "train_batch_size": "auto",
            "gradient_clipping": "auto",
            "bf16": {"enabled": "auto"},
            "fp16": {"enabled": "auto"},
            "zero_allow_untested_optimizer": True,
            # Its own Adam for main memory would have to be compiled at the first start.
            "zero_force_ds_cpu_optimizer": False,
        }
        own: dict[str, Any] = {"deepspeed": config, "bf16": formats.half == "bf16", "fp16": formats.half == "fp16"}
        if self.stage == 3 and spec.adapter.type == "lora" and spec.training.gradient_checkpointing:
            # Recomputing without re-entering autograd meets frozen weights that are not gathered (TRL forces the same).
            own["activation_checkpointing_kwargs"] = {"use_reentrant": True}
        return own

    def before_model(self) -> None:
        """Keep DeepSpeed from compiling its shared memory transport, and let it use the group that is open."""
        import deepspeed
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), auto_mpi_discovery=False, verbose=False)

    def save_model(self, trainer: FineTuneTrainer, directory: str, stock: Stock) -> None:
        """Write what rank 0 has whole; only stage 3 must gather, and of an adapter's base nothing is ever copied."""
        if self.stage == 3:
            stock()
        elif trainer.args.should_save and isinstance(trainer.model, PeftModel):
            trainer.write_weights(directory, None)
        elif trainer.args.should_save:
            stock()

    def save_optimizer(self, trainer: FineTuneTrainer, directory: Path, stock: Stock) -> None:
        """Let DeepSpeed write: each rank its own part, wherever its disk is."""
        directory.mkdir(parents=True, exist_ok=True)
        stock()

    def load_optimizer(self, trainer: FineTuneTrainer, directory: Path) -> None:
        """DeepSpeed has brought the moments back together with the weights."""

    def optimizer_files(self) -> tuple[str, ...]:
        """Return the file that names the folder of the parts; DeepSpeed refuses a folder that lacks one."""
        return ("latest",)

    def evaluation_model(self, trainer: FineTuneTrainer) -> torch.nn.Module:
        """Stage 3 gathers weights that are used outside their own module, as the head is, only inside the engine's forward."""
        model: torch.nn.Module = trainer.deepspeed if self.stage == 3 else trainer.model
        return model

    def local_part(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """Return this rank's part: with stage 3 the parameter itself is empty between passes, unless it is too small to be worth it."""
        part: torch.Tensor = getattr(parameter, "ds_tensor", parameter)
        return part

    def is_split(self, parameter: torch.nn.Parameter, ranks: int) -> bool:
        """Whether DeepSpeed has cut a parameter into as many parts, the last of them filled up."""
        part = getattr(parameter, "ds_tensor", None)
        return part is not None and part.numel() == -(-self.parameter_count(parameter) // ranks)

    def parameter_count(self, parameter: torch.nn.Parameter) -> int:
        """Stage 3 remembers the number of values of an empty parameter."""
        return int(getattr(parameter, "ds_numel", parameter.numel()))
