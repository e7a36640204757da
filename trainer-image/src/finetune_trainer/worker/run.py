"""One rank's run, from top to bottom."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import torch
from datasets import Dataset, load_from_disk

from finetune_api.contract.failures import EXIT_DONE, EXIT_STOPPED
from finetune_trainer.prepare.table import lengths
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.protocol import Facts
from finetune_trainer.worker import resume
from finetune_trainer.worker.adapter import add_adapter, lora_config, public_name
from finetune_trainer.worker.arguments import sft_config
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.facts import facts, pinned
from finetune_trainer.worker.final import save_final
from finetune_trainer.worker.group import open_group
from finetune_trainer.worker.heartbeat import Heartbeat
from finetune_trainer.worker.model import find_device, load_model
from finetune_trainer.worker.order import Order
from finetune_trainer.worker.precision import Device, Formats, resolve_formats
from finetune_trainer.worker.recorder import Recorder
from finetune_trainer.worker.schedule import make_schedule
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trackers import open_trackers
from finetune_trainer.worker.trainer import FineTuneTrainer, Material
from finetune_trainer.worker.usage import Stopwatch

if TYPE_CHECKING:
    from finetune_trainer.worker.start import Start

log = logging.getLogger(__name__)


def run(start: Start, started: float) -> int:
    """Train as planned; returns the exit code, 0 or 75.

    Raises :class:`TrainerError` and whatever torch raises; the caller classifies it.
    """
    spec = start.config.spec
    # Checksums of our own cover every file; torch's cost six times the time of writing it.
    torch.serialization.set_crc32_options(compute_crc32=False)
    device = find_device(spec.resources.device, start.rank.local_rank)
    formats = resolve_formats(spec, device, start.plan.pinned.dtype)
    material = load_material(start, formats, device)
    session = open_session(start, material, started)
    recorder = Recorder(session, lengths(material.train))
    conductor = Conductor(session, recorder)
    trainer = FineTuneTrainer(session, conductor, material, sft_config(session, formats, is_evaluated=material.evaluation is not None))
    conductor.attach(trainer)
    report(session, trainer, formats)
    with open_trackers(session):
        trainer.train(resume_from_checkpoint=str(start.plan.resume.directory) if start.plan.resume is not None else None)
        recorder.close()
        if session.stopped is None:
            save_final(session, trainer)
    # No rank leaves before all have handed over their last save.
    session.group.agree()
    session.group.close()
    return EXIT_DONE if session.stopped is None else EXIT_STOPPED


def load_material(start: Start, formats: Formats, device: Device) -> Material:
    """Load tokenizer, model with its adapter, and prepared rows from local directories.

    Raises :class:`TrainerError`: ModelError or ConfigurationError for a model or adapter that cannot be used.
    """
    plan, spec = start.plan, start.config.spec
    tokenizer = load_tokenizer(plan.tokenizer_dir)
    model = load_model(plan.model_dir, formats.weights, device)
    if spec.adapter.type == "lora":
        config = lora_config(spec.adapter, model, plan.peft_config)
        model = add_adapter(model, config, spec.training.seed, public_name(spec.model.uri))
    train = load_from_disk(plan.prepared_dir / "train")
    directory = plan.prepared_dir / "eval"
    evaluation = load_from_disk(directory) if directory.is_dir() else None
    assert isinstance(train, Dataset)
    assert evaluation is None or isinstance(evaluation, Dataset)
    return Material(model, tokenizer, train, evaluation)


def open_session(start: Start, material: Material, started: float) -> Session:
    """Work out the schedule, take over the state of the checkpoint, and wait for the other ranks.

    Raises :class:`TrainerError`: ConfigurationError for another global batch than the run began with, PeerLost when a peer does not come.
    """
    plan, spec, rank = start.plan, start.config.spec, start.rank
    rows = len(material.train)
    eval_rows = len(material.evaluation) if material.evaluation is not None else 0
    schedule = make_schedule(spec, train_rows=rows, eval_rows=eval_rows, world_size=rank.world_size)
    resume.check_global_batch(plan, schedule.global_batch, rank, spec.training.batch_size)
    if plan.resume is not None:
        resume.check_complete(plan.resume.directory, spec.adapter.type)
    progress, usage = resume.restore_progress(plan)
    return Session(
        plan=plan,
        config=start.config,
        rank=rank,
        link=start.link,
        orders=start.orders,
        staging=start.staging,
        heartbeat=Heartbeat(start.link),
        stopwatch=Stopwatch(time.monotonic, plan.pod_started or started, usage),
        group=open_group(rank, spec.resources.device, spec.distributed.timeout_seconds),
        schedule=schedule,
        order=Order(rows, schedule.global_batch, spec.training.seed, spec.dataset.reshuffle),
        progress=progress,
    )


def report(session: Session, trainer: FineTuneTrainer, formats: Formats) -> None:
    """Report what was resolved, and what an edit changes from the resumed step on (rank 0)."""
    changed = resume.changed_schedule(session)
    if changed:
        session.warn("ScheduleChanged", "from the resumed step on: " + "; ".join(f"{path} {change}" for path, change in changed.items()))
    for condition, text in formats.warnings.items():
        session.warn(condition, text)
    if session.rank.is_first:
        known = facts(session, trainer, formats)
        session.link.send(Facts(facts=known, pinned=pinned(session, formats)))
        log.info("training: %s", known)
