"""From the run config to a plan for the workers: what is common to all pods.

A thread of its own runs it; SIGTERM ends the process meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import CheckpointRef, Manifest, Pinned, Rewind, UsageSeconds
from finetune_api.exports import exports_of
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import ATTACHED
from finetune_api.strategies import effective_strategy
from finetune_trainer.outputs.families import check_directory
from finetune_trainer.protocol import DataStream, ResumePoint, WorkerPlan
from finetune_trainer.sources.adapter_directory import ADAPTER_CONFIG, fetch_adapter
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.digest import digest_of, directory_digest
from finetune_trainer.sources.hub_stream import write_excerpt
from finetune_trainer.sources.plain_checkpoint import plain_step
from finetune_trainer.sources.resolve import (
    FetchedData,
    FetchedModel,
    Split,
    fetch_data,
    fetch_json,
    fetch_model,
    fetch_tokenizer,
    tokenizer_names,
)
from finetune_trainer.store.base import Store
from finetune_trainer.stored_quantization import check_stored_quantization
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.companions import Companions, fetch_companions
from finetune_trainer.supervisor.environment import (
    PodEnvironment,
    Secrets,
    attached_source,
    data_stream,
    dataset_sources,
    model_source,
    tokenizer_source,
)
from finetune_trainer.supervisor.restore import RestoreTarget, fetch_best, restore_foreign, restore_own
from finetune_trainer.vision import has_vision, model_type, read_config

logger = logging.getLogger(__name__)
STREAMED = "dataset.uri"
"""Name under which the commit of a streamed dataset is frozen."""


@dataclass(frozen=True)
class Inputs:
    """What a start-up works with."""

    config: RunConfig
    environment: PodEnvironment
    store: Store
    secrets: Secrets
    sources: SourceContext
    board: Board
    started: float
    """Monotonic seconds at process start."""

    @property
    def spec(self) -> FineTuneJobSpec:
        """The resolved spec."""
        return self.config.spec

    @property
    def ranks(self) -> range:
        """Ranks of this pod."""
        count = self.config.topology.processes_per_replica
        return range(self.environment.pod_index * count, (self.environment.pod_index + 1) * count)

    @property
    def global_batch(self) -> int:
        """Rows per optimizer step, all ranks together."""
        training = self.spec.training
        return training.batch_size * training.grad_accum_steps * self.config.topology.world_size

    @property
    def restore_target(self) -> RestoreTarget:
        """Where and for whom checkpoints are fetched."""
        asked, ranks = self.spec.distributed.strategy, self.config.topology.world_size
        strategy = effective_strategy(asked, None, ranks) if asked != "auto" else None
        return RestoreTarget(self.spec, ranks, self.ranks, self.environment.work_dir / "resume", strategy)


@dataclass(frozen=True)
class Weights:
    """Model, tokenizer and what the method needs beside them, on local disk."""

    model: FetchedModel
    tokenizer_dir: Path
    tokenizer_digest: str
    companions: Companions
    attached: FetchedModel | None = None
    """The adapter that training goes on from."""
    stream: DataStream | None = None
    """Where training rows are read during the training."""
    has_vision: bool = False
    """The model is a vision-language model."""

    @property
    def pinned(self) -> Pinned:
        """The facts they stand for."""
        return Pinned(
            contract_version=CONTRACT_VERSION,
            model_revision=self.model.revision,
            tokenizer_digest=self.tokenizer_digest,
            companions=self.companions.revisions
            | ({ATTACHED: self.attached.revision} if self.attached is not None else {})
            | ({STREAMED: self.stream.commit} if self.stream is not None else {}),
        )


def fetch_weights(inputs: Inputs, pinned: Pinned | None) -> Weights:
    """Fetch the model, of the pinned revision if there is one, its tokenizer or another, and the method's companions."""
    spec = inputs.spec
    model = fetch_model(
        model_source(spec, inputs.secrets),
        inputs.sources,
        pinned=pinned.model_revision if pinned else None,
        needs_tokenizer=spec.model.tokenizer is None,
    )
    other = tokenizer_source(spec, inputs.secrets)
    tokenizer = fetch_tokenizer(other, inputs.sources) if other is not None else None
    for condition, message in {**(tokenizer.warnings if tokenizer is not None else {}), **model.warnings}.items():
        inputs.board.warn(condition, message)
    directory = (tokenizer or model).directory
    config = read_config(model.directory)
    model_type(spec, config)
    if pinned is None or pinned.quantization is None:
        check_stored_quantization(spec, config)
    if "gguf" in exports_of(spec):
        check_directory(model.directory, directory)
    known = pinned.companions if pinned else {}
    companions = fetch_companions(spec, inputs.secrets.model, inputs.sources, known)
    existing = attached_source(spec, inputs.secrets)
    attached = fetch_adapter(existing, inputs.sources, spec.builtin_method, pinned=known.get(ATTACHED)) if existing is not None else None
    return Weights(
        model,
        directory,
        directory_digest(directory, tokenizer_names(directory)),
        companions,
        attached,
        data_stream(spec, inputs.secrets, inputs.sources, known.get(STREAMED)),
        has_vision(config),
    )


@dataclass(frozen=True)
class RawData:
    """Training and evaluation files on local disk."""

    train: list[list[Path]]
    """Files of each source."""
    evaluation: list[Path]
    digest: str


def fetch_raw_data(inputs: Inputs, stream: DataStream | None = None, *, with_images: bool = False) -> RawData:
    """Fetch all sources of the dataset and the evaluation data; of a stream the first rows.

    ``with_images`` has the digests cover the images beside them.
    """
    dataset = inputs.spec.dataset
    if stream is not None:
        excerpt = write_excerpt(stream, inputs.environment.work_dir / "excerpt")
        train = [FetchedData([excerpt], digest_of([stream.commit, [file.name for file in stream.files]]))]
    else:
        train = _fetch_train(inputs, with_images=with_images)
    files, digests = [found.files for found in train], [found.digest for found in train]
    if dataset.eval_uri is None:
        return RawData(files, [], digests[0] if len(digests) == 1 else digest_of(digests))
    source = Source(dataset.eval_uri, "dataset.evalUri", inputs.secrets.dataset, dataset.region)
    evaluation = fetch_data(source, inputs.sources, Split(dataset.split, dataset.config), with_images=with_images)
    return RawData(files, evaluation.files, digest_of((*digests, evaluation.digest)))


def _fetch_train(inputs: Inputs, *, with_images: bool) -> list[FetchedData]:
    sources = dataset_sources(inputs.spec, inputs.secrets)
    return [fetch_data(source, inputs.sources, split, with_images=with_images) for source, split in sources]


def fetch_peft_config(inputs: Inputs, weights: Weights) -> Path | None:
    """The PEFT file that says what the adapter looks like: that of the attached one, or ``adapter.peftConfig``; None: the spec says it."""
    if weights.attached is not None:
        return weights.attached.directory / ADAPTER_CONFIG
    uri = inputs.spec.adapter.peft_config
    if uri is None:
        return None
    return fetch_json(Source(uri, "adapter.peftConfig", inputs.secrets.model, inputs.spec.model.region), inputs.sources)


def restore(inputs: Inputs, ref: CheckpointRef, manifest: Manifest | None) -> ResumePoint:
    """Fetch and verify a checkpoint: one of this job (with its manifest) or one from elsewhere. Raises RejectedError or TrainerError."""
    if manifest is not None:
        return restore_own(inputs.store, ref, manifest, inputs.restore_target)
    source = Source(ref.uri or "", "checkpoint.resumeFrom", inputs.secrets.store, inputs.config.store.region)
    return restore_foreign(source, inputs.sources, inputs.restore_target)


def resume_step(point: ResumePoint | None) -> int:
    """Step training goes on from; 0 from scratch."""
    if point is None:
        return 0
    return point.manifest.step if point.manifest else plain_step(point.directory)


@dataclass(frozen=True)
class Fetched:
    """All that was brought onto local disk."""

    weights: Weights
    rows: Path
    """Prepared rows."""
    resume: ResumePoint | None


@dataclass(frozen=True)
class Course:
    """What this attempt takes over from those before it; the same on every pod."""

    attempt: int
    lost_until_step: int = 0
    rewinds: Sequence[Rewind] = ()
    usage_before: UsageSeconds = field(default_factory=UsageSeconds)
    """Pod 0 alone knows and needs it."""


def build_plan(inputs: Inputs, fetched: Fetched, course: Course, pinned: Pinned) -> WorkerPlan:
    """Everything on local disk, as the workers need it."""
    work = inputs.environment.work_dir
    inputs.environment.output_dir.mkdir(parents=True, exist_ok=True)
    return WorkerPlan(
        run_config=inputs.environment.run_config.absolute(),
        attempt=course.attempt,
        model_dir=fetched.weights.model.directory,
        tokenizer_dir=fetched.weights.tokenizer_dir,
        prepared_dir=fetched.rows,
        stream=fetched.weights.stream,
        peft_config=fetch_peft_config(inputs, fetched.weights),
        attached_dir=fetched.weights.attached.directory if fetched.weights.attached is not None else None,
        reference_dir=fetched.weights.companions.reference,
        reward_dir=fetched.weights.companions.reward,
        reward_sources=fetched.weights.companions.reward_sources,
        resume=fetched.resume,
        lost_until_step=course.lost_until_step,
        rewinds=list(course.rewinds),
        usage_before=course.usage_before,
        pod_started=inputs.started,
        output_dir=inputs.environment.output_dir,
        best_dir=_best_dir(inputs, fetched.resume),
        metrics_file=work / "metrics.jsonl",
        tensorboard_dir=work / "tensorboard",
        tracker_secrets=inputs.secrets.trackers,
        pinned=pinned,
    )


def _best_dir(inputs: Inputs, resume: ResumePoint | None) -> Path | None:
    """Local copy of the best checkpoint so far, where the result is to be the best one."""
    manifest = resume.manifest if resume else None
    if resume is None or manifest is None or manifest.best is None or not wants_best(inputs.spec):
        return None
    if (manifest.best.attempt, manifest.best.step) == (manifest.attempt, manifest.step):
        return resume.directory
    ref = CheckpointRef(attempt=manifest.best.attempt, step=manifest.best.step)
    best = fetch_best(inputs.store, ref, inputs.restore_target.directory)
    if best is None:
        inputs.board.warn(
            "BestCheckpointLost",
            f"The best checkpoint (step {ref.step}) is no longer complete in the store; the best from here on is used.",
        )
    return best


def wants_best(spec: FineTuneJobSpec) -> bool:
    """Whether the best weights become the result: ``output.use``, by default with early stopping."""
    return spec.output.use == "best" or (spec.output.use is None and spec.early_stopping.patience > 0)
