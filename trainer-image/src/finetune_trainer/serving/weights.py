"""Which weights a server loads, brought from store and source onto local disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.serve import Form, ServeConfig
from finetune_api.contract.store import FINAL_PREFIX, LINEAGE, PROMPTS, Pinned, SamplePrompt, StoredFile, checkpoint_prefix
from finetune_api.models.sources import Dataset
from finetune_trainer.errors import TrainerError
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.store.transfer import download_files
from finetune_trainer.supervisor.environment import PodEnvironment
from finetune_trainer.verbs.results import complete_exports, fetch_base, find_final, find_pinned

WEIGHT_FILES: Final = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
RESUME_ONLY: Final = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "trainer_state", "finetune_", "part-")
"""Beginnings of names of files that only resuming needs."""
PROMPT_LIST: Final = TypeAdapter(list[SamplePrompt])
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """Weights on local disk."""

    base_dir: Path | None
    """Of an adapter: its base model; None: the weights are a whole model."""
    directory: Path
    """Adapter or model, with its tokenizer."""
    pinned: Pinned
    words: str
    """What they are, for people."""


@dataclass(frozen=True)
class _Stored:
    """Weights in the store."""

    prefix: str
    files: Sequence[StoredFile]
    is_whole: bool
    pinned: Pinned
    words: str


def find_weights(config: ServeConfig, environment: PodEnvironment, store: Store, tell: Tell) -> Weights:
    """Bring what was asked for onto local disk.

    Raises :class:`TrainerError` when it is not there, or the model it belongs to is not what it was.
    """
    found = _checkpoint(store, config.checkpoint) if config.checkpoint is not None else _result(store, config.form)
    directory = environment.work_dir / "serve"
    shutil.rmtree(directory, ignore_errors=True)
    tell(found.words)
    download_files(store, found.prefix, found.files, directory)
    if found.is_whole:
        return Weights(None, directory, found.pinned, found.words)
    uri = config.run.spec.model.uri
    tell(f"the base model {uri}")
    return Weights(fetch_base(config.run, environment, found.pinned), directory, found.pinned, f"{found.words} on {uri}")


def load_dataset(config: ServeConfig, store: Store) -> Dataset:
    """How prompts were put to the model: as the result's lineage has it; before there is a result, as the server was told."""
    dataset = config.run.spec.dataset
    try:
        trained = json.loads(store.get(LINEAGE))["spec"]["dataset"]
    except ObjectNotFoundError:
        return dataset
    return dataset.model_copy(update={"system_prompt": trained.get("systemPrompt"), "prompt_template": trained.get("promptTemplate")})


def load_prompts(store: Store) -> list[SamplePrompt]:
    """Prompts of the data; none where the training left none."""
    try:
        return PROMPT_LIST.validate_json(store.get(PROMPTS))
    except (ObjectNotFoundError, ValidationError):
        return []


def _result(store: Store, form: Form) -> _Stored:
    final = find_final(store, "ask")
    step = final.manifest.step
    if form is Form.FINAL:
        kind = "model" if final.manifest.kind == "full" else "adapter"
        words = f"the final {kind} of step {step}"
        return _Stored(FINAL_PREFIX, final.manifest.files, final.manifest.kind == "full", final.pinned, words)
    merged = next((each for each in complete_exports(store, final) if each.type == "merged"), None)
    if merged is None:
        raise TrainerError(
            FailureClass.MODEL, f"{store.url(FINAL_PREFIX)} holds no merged model: make one with kubectl finetune export --format merged."
        )
    return _Stored(merged.prefix, merged.files, is_whole=True, pinned=final.pinned, words=f"the merged model of step {step}")


def _checkpoint(store: Store, step: int) -> _Stored:
    """The checkpoint of a step, of the newest attempt that has it."""
    known = read_ledger(store).checkpoints
    found = max((each for each in known if each.step == step), key=lambda each: each.attempt, default=None)
    if found is None:
        steps = ", ".join(str(each) for each in sorted({each.step for each in known})) or "none"
        raise TrainerError(FailureClass.MODEL, f"{store.url('')} has no checkpoint of step {step}; it has {steps}.")
    prefix, kind = checkpoint_prefix(found.attempt, step), found.manifest.kind
    files = [file for file in found.manifest.files if "/" not in file.path and not file.path.startswith(RESUME_ONLY)]
    if not any(file.path in WEIGHT_FILES for file in files):
        raise TrainerError(
            FailureClass.MODEL,
            f"{store.url(prefix)} holds its weights in shares of the ranks ({found.manifest.strategy}), which cannot be loaded alone; "
            "ask the final result.",
        )
    return _Stored(
        prefix, files, kind == "full", find_pinned(store), f"the {'model' if kind == 'full' else 'adapter'} of checkpoint {step}"
    )
