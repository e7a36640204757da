"""What a training left in its store, and the base model it was made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import EXPORTS, FINAL_PREFIX, MANIFEST, Exported, ExportManifest, FinalManifest, Pinned
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.resolve import fetch_model
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.supervisor.attempt import read_pinned
from finetune_trainer.supervisor.environment import PodEnvironment, job_secrets, model_source, source_context


@dataclass(frozen=True)
class Final:
    """The trained result in the store."""

    manifest: FinalManifest
    digest: str
    """sha256 of its manifest."""
    pinned: Pinned


def find_final(store: Store, purpose: str) -> Final:
    """The final weights. Raises :class:`TrainerError` (ModelError) when there are none to ``purpose``."""
    try:
        raw = store.get(f"{FINAL_PREFIX}/{MANIFEST}")
    except ObjectNotFoundError as error:
        raise TrainerError(FailureClass.MODEL, f"{store.url(FINAL_PREFIX)} holds no final weights to {purpose}.") from error
    return Final(FinalManifest.model_validate_json(raw), hashlib.sha256(raw).hexdigest(), find_pinned(store))


def find_pinned(store: Store) -> Pinned:
    """What the first attempt froze; nothing where it left no word."""
    return read_pinned(store) or Pinned(contract_version=CONTRACT_VERSION)


def complete_exports(store: Store, final: Final) -> list[Exported]:
    """What exports have made of these very weights."""
    try:
        manifest = ExportManifest.model_validate_json(store.get(EXPORTS))
    except (ObjectNotFoundError, ValidationError):
        return []
    return manifest.exported if manifest.source == final.digest else []


def fetch_base(config: RunConfig, environment: PodEnvironment, pinned: Pinned) -> Path:
    """Fetch the base model of the revision that was trained on; returns its directory.

    Raises :class:`TrainerError` (ModelError) when it has changed since.
    """
    model = config.spec.model
    fetched = fetch_model(
        model_source(config.spec, job_secrets(config, environment)),
        source_context(config, environment),
        pinned=pinned.model_revision,
        needs_tokenizer=model.tokenizer is None,
    )
    if pinned.model_revision is not None and fetched.revision != pinned.model_revision:
        raise TrainerError(
            FailureClass.MODEL,
            f"model.uri {model.uri}: it has changed since the training ({pinned.model_revision[:12]} then, "
            f"{fetched.revision[:12]} now); put the trained revision back.",
        )
    return fetched.directory
