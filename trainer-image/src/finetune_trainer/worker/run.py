"""One rank's run, from top to bottom."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from datasets import Dataset, load_from_disk

from finetune_api.contract.failures import EXIT_DONE, EXIT_STOPPED
from finetune_trainer.prepare.table import lengths
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.protocol import Facts
from finetune_trainer.worker import resume
from finetune_trainer.worker.adapter import lora_config
from finetune_trainer.worker.arguments import sft_config
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.facts import facts, pinned
from finetune_trainer.worker.final import save_final
from finetune_trainer.worker.group import open_group
from finetune_trainer.worker.model import find_device, load_model
from finetune_trainer.worker.order import Order
from finetune_trainer.worker.precision import resolve_formats
from finetune_trainer.worker.recorder import Recorder
from finetune_trainer.worker.schedule import make_schedule
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trainer import FineTuneTrainer
from finetune_trainer.worker.usage import Stopwatch

if TYPE_CHECKING:
    from finetune_trainer.worker.start import Start

log = logging.getLogger(__name__)


def run(start: Start, started: float) -> int:
    """Train as planned; returns the exit code, 0 or 75.

    Raises :class:`TrainerError` and whatever torch raises; the caller classifies it.
    """
    plan, spec, rank = start.plan, start.config.spec, start.rank
    device = find_device(spec.resources.device, rank.local_rank)
    formats = resolve_formats(spec, device, plan.pinned.dtype)
    tokenizer = load_tokenizer(plan.tokenizer_dir)
    model = load_model(plan.model_dir, formats.weights, device)
    peft_config = lora_config(spec.adapter, model, plan.peft_config) if spec.adapter.type == "lora" else None
    train, evaluation = load_rows(start)
    progress, usage = resume.restore_progress(plan)
    schedule = make_schedule(
        spec, train_rows=len(train), eval_rows=len(evaluation) if evaluation is not None else 0, world_size=rank.world_size
    )
    resume.check_global_batch(plan, schedule.global_batch, rank, spec.training.batch_size)
    session = Session(
        plan=plan,
        config=start.config,
        rank=rank,
        link=start.link,
        orders=start.orders,
        staging=start.staging,
        stopwatch=Stopwatch(time.monotonic, plan.pod_started or started, usage),
        group=open_group(rank, spec.resources.device, spec.distributed.timeout_seconds),
        schedule=schedule,
        order=Order(len(train), schedule.global_batch, spec.training.seed, spec.dataset.reshuffle),
        progress=progress,
    )
    recorder = Recorder(session, lengths(train))
    conductor = Conductor(session, recorder)
    trainer = FineTuneTrainer(
        session,
        conductor,
        model=model,
        tokenizer=tokenizer,
        args=sft_config(session, formats, has_evaluation=evaluation is not None),
        train=train,
        evaluation=evaluation,
        peft_config=peft_config,
    )
    conductor.attach(trainer)
    tell_facts(
        session,
        trainer,
        formats.warnings | schedule_warning(session),
        Facts(facts=facts(session, trainer, formats), pinned=pinned(session, formats)),
    )
    trainer.train(resume_from_checkpoint=str(plan.resume.directory) if plan.resume is not None else None)
    recorder.close()
    if session.stopped is None:
        save_final(session, trainer)
    session.group.agree()
    session.group.close()
    return EXIT_DONE if session.stopped is None else EXIT_STOPPED


def load_rows(start: Start) -> tuple[Dataset, Dataset | None]:
    """Open the prepared rows: training, and evaluation where there are any."""
    train = load_from_disk(start.plan.prepared_dir / "train")
    directory = start.plan.prepared_dir / "eval"
    evaluation = load_from_disk(directory) if directory.is_dir() else None
    assert isinstance(train, Dataset) and (evaluation is None or isinstance(evaluation, Dataset))
    return train, evaluation


def schedule_warning(session: Session) -> dict[str, str]:
    """Say which edited fields take effect from the resumed step on."""
    changed = resume.changed_schedule(session)
    if not changed:
        return {}
    return {"ScheduleChanged": "from the resumed step on: " + "; ".join(f"{path} {change}" for path, change in changed.items())}


def tell_facts(session: Session, trainer: FineTuneTrainer, warnings: dict[str, str], message: Facts) -> None:
    """Report what was resolved (rank 0)."""
    for condition, text in warnings.items():
        session.warn(condition, text)
    if session.rank.is_first:
        session.link.send(message)
        log.info("training: %s", message.facts)
