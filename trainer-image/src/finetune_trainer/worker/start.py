"""What a worker does before it imports anything heavy: listen to its supervisor and to SIGTERM, and keep needless imports out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetune_api.constants import EIGHT_BIT
from finetune_api.contract.failures import EXIT_STOPPED, EXIT_UNKNOWN
from finetune_api.contract.run_config import RunConfig
from finetune_api.strategies import ZERO, effective_strategy, is_quantized
from finetune_trainer.protocol import Hello, Phase, SaveNow, Staged, Stop, SupervisorMessage, WorkerPlan
from finetune_trainer.vision import has_vision, read_config
from finetune_trainer.worker.link import Link
from finetune_trainer.worker.orders import Orders, watch_sigterm
from finetune_trainer.worker.rank import Rank
from finetune_trainer.worker.staging import Staging

log = logging.getLogger(__name__)

LIBRARY_SETTINGS: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    # The supervisor reports progress; the stock callback would block a step for 5 s when the endpoint is away.
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
}
"""A worker reads local files only and reports to nobody but its supervisor."""


@dataclass(frozen=True)
class Start:
    """A worker that listens and has not begun."""

    plan: WorkerPlan
    config: RunConfig
    rank: Rank
    link: Link
    orders: Orders
    staging: Staging


def start(plan: WorkerPlan, config: RunConfig, rank: Rank, link_path: Path) -> Start:
    """Connect to the supervisor and obey it from now on. Must be called from the main thread."""
    staging = Staging()
    # The threads below may fire before the link is bound; they then find it in the list.
    links: list[Link] = []

    def leave() -> None:
        log.info("told to stop before the first step: leaving")
        for open_link in links:
            open_link.close()
        os._exit(EXIT_STOPPED)

    orders = Orders(leave)

    def obey(message: SupervisorMessage) -> None:
        match message:
            case Stop(trigger=trigger):
                orders.stop(trigger)
            case SaveNow():
                orders.save()
            case Staged(step=step):
                staging.arrived(step)

    watch_sigterm(lambda: orders.stop("signal"))
    link = Link(link_path, obey, on_lost=lambda: os._exit(EXIT_UNKNOWN))
    links.append(link)
    link.send(Hello(rank=rank.rank, local_rank=rank.local_rank, pid=os.getpid()))
    link.send(Phase(phase="Loading"))
    return Start(plan, config, rank, link, orders, staging)


def prepare_environment(environment: MutableMapping[str, str], config: RunConfig, rank: Rank) -> None:
    """Set what the libraries read when they are imported."""
    environment.update(LIBRARY_SETTINGS)
    if config.spec.resources.device == "gpu" and rank.local_world_size == 1:
        # With several GPUs in sight and one process, the Trainer would spread the model by nn.DataParallel.
        environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    # DeepSpeed looks for a device by itself when it is imported, and may find one nobody asked for.
    environment["DS_ACCELERATOR"] = "cuda" if config.spec.resources.device == "gpu" else "cpu"


def needless_modules(config: RunConfig, plan: WorkerPlan) -> list[str]:
    """Optional modules that peft, transformers and trl import wherever they are installed, and that this run has no use for."""
    spec, pinned = config.spec, plan.pinned
    wanted: set[str] = {tracker.type for tracker in spec.logging.trackers}
    if spec.training.optimizer in EIGHT_BIT or is_quantized(spec.quantization.mode, pinned.quantization):
        wanted.add("bitsandbytes")
    if effective_strategy(spec.distributed.strategy, pinned.strategy, config.topology.world_size) in ZERO:
        wanted.add("deepspeed")
    if has_vision(read_config(plan.model_dir)):
        wanted.add("torchvision")
    return [name for name in ("wandb", "deepspeed", "bitsandbytes", "torchvision") if name not in wanted]


def hide_modules(names: Iterable[str]) -> None:
    """Make modules not importable (None is Python's own way to say so): several seconds of every start."""
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
