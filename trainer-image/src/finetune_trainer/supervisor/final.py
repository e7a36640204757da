"""The end of a finished training: final weights, metrics, logs, lineage, tracker files; what makes them exist is written last."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import FineTuneProgress
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import FINAL_PREFIX, MANIFEST, AttemptRecord, FinalManifest, Pinned
from finetune_trainer.outputs.card import CARD
from finetune_trainer.protocol import FinalSaved
from finetune_trainer.store.base import Store
from finetune_trainer.store.checkpoints import check_not_superseded, timestamp
from finetune_trainer.store.transfer import upload_files

logger = logging.getLogger(__name__)


def upload_final(
    store: Store, final: FinalSaved, *, attempt: int, attachments: Mapping[str, bytes], describe: Callable[[FinalManifest], bytes]
) -> FinalManifest:
    """Upload the final adapter or model with its card (``describe``); raises SupersededError when a newer attempt exists."""
    check_not_superseded(store, attempt)
    manifest = FinalManifest(
        contract_version=CONTRACT_VERSION,
        kind=final.kind,
        step=final.step,
        attempt=attempt,
        source=final.source,
        files=[],
        metrics=final.metrics,
    )
    (final.directory / CARD).write_bytes(describe(manifest))
    for key, content in attachments.items():
        store.put(key, content)
    names = sorted(path.relative_to(final.directory).as_posix() for path in final.directory.rglob("*") if path.is_file())
    files = upload_files(store, final.directory, FINAL_PREFIX, names)
    manifest = manifest.model_copy(update={"files": files})
    check_not_superseded(store, attempt)
    store.put(f"{FINAL_PREFIX}/{MANIFEST}", manifest.to_json().encode())
    return manifest


def lineage(
    config: RunConfig, final: FinalSaved, progress: FineTuneProgress, pinned: Pinned | None, attempts: Iterable[AttemptRecord] = ()
) -> bytes:
    """Where the result comes from: enough to make it again."""
    document = {
        "job": config.job.model_dump(by_alias=True),
        "run": config.run,
        "attempt": progress.attempt,
        "finishedAt": timestamp(datetime.now(UTC)),
        "spec": config.spec.model_dump(by_alias=True, exclude_none=True, mode="json"),
        "topology": config.topology.model_dump(by_alias=True),
        "pinned": pinned.model_dump(by_alias=True, exclude_none=True) if pinned else {},
        "facts": progress.facts,
        "attempts": [record.model_dump(by_alias=True, exclude_none=True) for record in attempts],
        "seed": config.spec.training.seed,
        "parent": progress.parent.model_dump(by_alias=True, exclude_none=True) if progress.parent else None,
        "result": final.model_dump(by_alias=True, include={"step", "kind", "source", "early_stopped", "metrics"}),
        "usageSeconds": final.usage.model_dump(by_alias=True),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def upload_tensorboard(store: Store, directory: Path) -> None:
    """Upload TensorBoard event files, where that tracker is on."""
    if directory.is_dir():
        names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
        upload_files(store, directory, "tensorboard", names)
