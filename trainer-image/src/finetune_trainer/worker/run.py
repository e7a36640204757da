"""One rank's run, from top to bottom."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from datasets import Dataset, load_from_disk
from transformers import set_seed

from finetune_api.contract.failures import EXIT_DONE, EXIT_STOPPED, FailureClass
from finetune_api.strategies import effective_strategy
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.later import LaterRows, StreamedRows
from finetune_trainer.prepare.preparation import open_preparation
from finetune_trainer.prepare.processor import load_processor
from finetune_trainer.prepare.stream import RowStream
from finetune_trainer.prepare.table import lengths
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.protocol import Facts, Used
from finetune_trainer.rollout import check_rollout
from finetune_trainer.vision import has_vision, model_type, read_config
from finetune_trainer.worker import resume
from finetune_trainer.worker.adapter import add_adapter, attach_weights, lora_config, public_name
from finetune_trainer.worker.arguments import training_arguments
from finetune_trainer.worker.backend import optimize
from finetune_trainer.worker.checkpoint import settle
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.eight_bits import check_optimizer
from finetune_trainer.worker.facts import facts, parameter_counts, pinned
from finetune_trainer.worker.final import save_final
from finetune_trainer.worker.gpu import gpu_meter
from finetune_trainer.worker.group import open_group
from finetune_trainer.worker.heartbeat import Heartbeat
from finetune_trainer.worker.loader import TokenisedLater
from finetune_trainer.worker.methods import Request, make_arguments, make_trainer
from finetune_trainer.worker.model import Kind, find_device, load_model
from finetune_trainer.worker.order import Order, StreamOrder
from finetune_trainer.worker.precision import Device, Formats, resolve_formats
from finetune_trainer.worker.recorder import Recorder
from finetune_trainer.worker.schedule import job_pace, make_schedule
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.sight import freeze_vision, load_images
from finetune_trainer.worker.strategies import sharing_of
from finetune_trainer.worker.trackers import open_trackers
from finetune_trainer.worker.trainer import FineTuneTrainer, Material
from finetune_trainer.worker.usage import Stopwatch

if TYPE_CHECKING:
    from finetune_trainer.protocol import WorkerPlan
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
    formats = resolve_formats(spec, device, start.plan.pinned.dtype, start.plan.pinned.quantization)
    check_optimizer(spec, device)
    if spec.grpo is not None:
        check_rollout(spec.grpo)
    rows = load_rows(start.plan)
    session = open_session(start, rows, started)
    args = make_arguments(session, training_arguments(session, formats, is_evaluated=rows.evaluation is not None))
    session.sharing.before_model()
    material = load_material(session, rows, formats, device)
    session.group.meet("loaded")
    recorder = Recorder(session, lengths(rows.train) if material.later_train is None else None)
    conductor = Conductor(session, recorder)
    trainer = make_trainer(Request(session, conductor, material, formats, device, args))
    conductor.attach(trainer)
    session.sharing.after_trainer(trainer.model)
    trainable, total = parameter_counts(trainer.model, session.sharing)
    recorder.meter = gpu_meter(device, formats, trainable=trainable, total=total, world_size=session.rank.world_size)
    report(session, trainer, formats)
    checkpoint = start.plan.resume.directory if start.plan.resume is not None else None
    if checkpoint is not None:
        session.sharing.load_weights(trainer, checkpoint)
    with open_trackers(session):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        except TrainerError as error:
            if error.failure_class is FailureClass.LOSS_DIVERGED:  # of which all ranks know: the last good checkpoint is not lost
                settle(session)
            raise
        settle(session)
        recorder.close()
        if session.stopped is None:
            save_final(session, trainer)
    # No rank leaves before all have handed over their last save.
    session.group.agree()
    session.group.close()
    return EXIT_DONE if session.stopped is None else EXIT_STOPPED


class PreparedRows(NamedTuple):
    """Rows ready for training."""

    train: Dataset
    evaluation: Dataset | None
    images: Dataset | None = None
    """Those that rows show."""


def load_rows(plan: WorkerPlan) -> PreparedRows:
    """Open the prepared rows."""
    train = load_from_disk(plan.prepared_dir / "train")
    directory = plan.prepared_dir / "eval"
    evaluation = load_from_disk(directory) if directory.is_dir() else None
    assert isinstance(train, Dataset)
    assert evaluation is None or isinstance(evaluation, Dataset)
    return PreparedRows(train, evaluation, load_images(plan.prepared_dir))


def load_material(session: Session, rows: PreparedRows, formats: Formats, device: Device) -> Material:
    """Load tokenizer and model with its adapter from local directories.

    Raises :class:`TrainerError`: ModelError or ConfigurationError for a model or adapter that cannot be used.
    """
    plan, spec = session.plan, session.spec
    config, runs_code = read_config(plan.model_dir), spec.model.trust_remote_code
    session.model_type, sees = model_type(spec, config), has_vision(config)
    words = (load_processor if sees else load_tokenizer)(plan.tokenizer_dir, spec.dataset.chat_template, runs_code=runs_code)
    scores = spec.method == "reward"
    if scores:
        set_seed(spec.training.seed)  # the score head is new
    placed = not session.sharing.places_model
    kind: Kind = "scores" if scores else "images" if sees else "text"
    model = load_model(plan.model_dir, formats, device, placed=placed, kind=kind, runs_code=runs_code)
    if sees and session.model_type == "LLM":
        freeze_vision(model)
    if spec.training.backend == "optimized":
        session.backend = optimize(spec, model, device, formats)
    if spec.adapter.type == "lora":
        task = "SEQ_CLS" if scores else "CAUSAL_LM"
        adapter = lora_config(spec.adapter, model, plan.peft_config, task, sees=session.model_type if sees else None)
        keeps_dtype = session.sharing.needs_one_dtype
        model = add_adapter(model, adapter, spec.training.seed, public_name(spec.model.uri), keeps_dtype=keeps_dtype)
        if plan.attached_dir is not None:
            attach_weights(model, plan.attached_dir)
    return with_later_rows(session, Material(model, words, rows.train, rows.evaluation, rows.images))


def with_later_rows(session: Session, material: Material) -> Material:
    """Add where rows come from that are tokenised during the training."""
    plan, dataset = session.plan, session.spec.dataset
    if not dataset.lazy_tokenize and plan.stream is None:
        return material
    preparation = open_preparation(session.spec, plan.tokenizer_dir)
    train, evaluation = material.train, material.evaluation
    if plan.stream is not None:
        stream = RowStream(plan.stream, session.spec.training.seed, reshuffle=dataset.reshuffle)
        later = TokenisedLater(StreamedRows(stream, preparation), session.order.rows, preparation.limit)
    else:
        later = TokenisedLater(LaterRows(train, preparation), len(train), preparation.limit)
    is_evaluation_later = dataset.lazy_tokenize and evaluation is not None
    return replace(
        material,
        later_train=later,
        later_evaluation=TokenisedLater(LaterRows(evaluation, preparation), len(evaluation), preparation.limit)
        if is_evaluation_later and evaluation is not None
        else None,
    )


def open_session(start: Start, rows: PreparedRows, started: float) -> Session:
    """Work out the schedule, take over the state of the checkpoint, and wait for the other ranks.

    Raises :class:`TrainerError`: ConfigurationError for another global batch or number of ranks than the run can go on with, PeerLost
    when a peer does not come.
    """
    plan, spec, rank = start.plan, start.config.spec, start.rank
    eval_rows = len(rows.evaluation) if rows.evaluation is not None else 0
    pace = job_pace(spec, rank.world_size)
    train_rows = len(rows.train) if plan.stream is None else spec.training.max_steps * pace.rows_per_step
    schedule = make_schedule(spec, train_rows=train_rows, eval_rows=eval_rows, world_size=rank.world_size)
    sharing = sharing_of(effective_strategy(spec.distributed.strategy, plan.pinned.strategy, rank.world_size))
    resume.check_global_batch(plan, schedule.global_batch, rank, spec.training.batch_size)
    resume.check_ranks(plan, sharing.name, rank)
    if plan.resume is not None:
        resume.check_complete(plan.resume.directory, spec.adapter.type, sharing.optimizer_files())
    progress = resume.restore_progress(plan)
    return Session(
        plan=plan,
        config=start.config,
        rank=rank,
        link=start.link,
        orders=start.orders,
        staging=start.staging,
        heartbeat=Heartbeat(start.link),
        stopwatch=Stopwatch(
            time.monotonic,
            plan.pod_started or started,
            plan.usage_before,
            report=lambda usage, until: start.link.send(Used(usage=usage, until=until)) if rank.is_first else None,
        ),
        sharing=sharing,
        group=open_group(rank, spec.resources.device, spec.distributed.timeout_seconds, needed=sharing.needs_group),
        schedule=schedule,
        pace=pace,
        order=(Order if plan.stream is None else StreamOrder)(
            train_rows,
            pace.rows_per_step,
            spec.training.seed,
            spec.dataset.reshuffle,
            fills=pace.fills,
            repeats=pace.repeats,
            rewinds=tuple(plan.rewinds),
        ),
        progress=progress,
    )


def report(session: Session, trainer: FineTuneTrainer, formats: Formats) -> None:
    """Report what was resolved, and what an edit changes from the resumed step on (rank 0)."""
    changed = resume.changed_schedule(session)
    if changed:
        session.progress.trend = session.progress.trend.forgiving()
        session.warn("ScheduleChanged", "from the resumed step on: " + "; ".join(f"{path} {change}" for path, change in changed.items()))
    for condition, text in formats.warnings.items():
        session.warn(condition, text)
    if formats.is_quantized and session.sharing.shards_weights:
        session.warn(
            "QuantizedBaseLoadedWhole",
            f"quantization.mode 4bit with distributed.strategy {session.sharing.name}: each rank loads the whole 4-bit base before it is "
            "split, so that the model has to fit one GPU in 4 bits; zero2 and ddp then train the same without gathering it, and "
            "quantization.mode none splits it while it loads",
        )
    if session.rank.is_first:
        known = facts(session, trainer, formats)
        missing = len(session.backend.missing) if session.backend is not None else None
        session.link.send(Facts(facts=known, pinned=pinned(session, formats), missing_parts=missing))
        log.info("training: %s", known)
