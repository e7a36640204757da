"""Rows ready for training: taken from the cache or the store under their content key, prepared once otherwise."""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_DONE, FailureClass
from finetune_api.contract.store import MANIFEST, PROMPTS, SAMPLES, PreparedManifest, prepared_prefix
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Failed, PreparedSummary, PreparePlan
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import DigestMismatchError, ObjectNotFoundError
from finetune_trainer.store.transfer import download_files, fill_directory, upload_files

logger = logging.getLogger(__name__)
SUMMARY = "prepared.json"


def cached_rows(cache_dir: Path, key: str) -> Path | None:
    """Prepared rows in the cache; a directory of that name is complete by construction."""
    directory = cache_dir / "prepared" / key
    return directory if directory.is_dir() else None


def rows_in_store(store: Store, key: str) -> PreparedManifest | None:
    """Manifest of prepared rows in the store."""
    try:
        return PreparedManifest.model_validate_json(store.get(f"{prepared_prefix(key)}/{MANIFEST}"))
    except (ObjectNotFoundError, ValidationError):
        return None


def fetch_rows(store: Store, manifest: PreparedManifest, cache_dir: Path) -> Path | None:
    """Bring prepared rows from the store into the cache; None when they are damaged (they are prepared anew then)."""
    try:
        return fill_directory(
            cache_dir / "prepared" / manifest.key,
            lambda directory: download_files(store, prepared_prefix(manifest.key), manifest.files, directory),
        )
    except (DigestMismatchError, ObjectNotFoundError) as error:
        logger.warning("prepared rows in the store are damaged: %s", error)
        return None


def upload_rows(store: Store, directory: Path, key: str, dataset_digest: str) -> PreparedManifest:
    """Keep prepared rows and five samples (V-03) in the store, manifest last."""
    summary = read_summary(directory)
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    manifest = PreparedManifest(
        contract_version=CONTRACT_VERSION,
        key=key,
        files=upload_files(store, directory, prepared_prefix(key), names),
        train_rows=summary.train_rows,
        eval_rows=summary.eval_rows,
        dataset_digest=dataset_digest,
        truncated_prompts=summary.truncated_prompts,
        truncated_rows=summary.truncated_rows,
        skipped_rows=summary.skipped_rows,
        tokens=summary.tokens,
    )
    store.put(f"{prepared_prefix(key)}/{MANIFEST}", manifest.to_json().encode())
    return manifest


def put_samples(store: Store, directory: Path) -> None:
    """Write five raw training rows for trying out the model (V-03), and the prompts that an export answers."""
    summary = read_summary(directory)
    store.put(SAMPLES, json.dumps(summary.samples, ensure_ascii=False, indent=1).encode())
    prompts = [prompt.model_dump(by_alias=True) for prompt in summary.prompts]
    store.put(PROMPTS, json.dumps(prompts, ensure_ascii=False, indent=1).encode())


def read_summary(directory: Path) -> PreparedSummary:
    """What preparing found."""
    return PreparedSummary.model_validate_json((directory / SUMMARY).read_bytes())


class PrepareProcess:
    """Runs the prepare program and turns its end into rows in the cache or one error."""

    def __init__(self, program: Callable[[Path], tuple[int, Sequence[str]]], *, work_dir: Path, cache_dir: Path) -> None:
        """``program`` runs for a plan file and returns its exit code and last lines."""
        self._program = program
        self._work_dir = work_dir
        self._cache_dir = cache_dir
        self.failure: Failed | None = None
        """What the program said on the link before it left; set by the link's thread before the program returns."""

    def run(self, plan: PreparePlan, key: str) -> Path:
        """Prepare rows into the cache under their key. Raises the class the program named, UnknownError when it just died."""
        target = self._cache_dir / "prepared" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        output = target.with_name(f".filling-{key}-{uuid.uuid4().hex[:8]}")
        plan_file = self._work_dir / "prepare-plan.json"
        plan_file.write_text(plan.model_copy(update={"output_dir": output}).to_json(), encoding="utf-8")
        try:
            code, last_lines = self._program(plan_file)
            if code != EXIT_DONE:
                raise self._error(code, last_lines)
            return fill_directory(target, lambda directory: _move_into(output, directory))
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def _error(self, code: int, last_lines: Sequence[str]) -> TrainerError:
        if self.failure is not None:
            return TrainerError(self.failure.failure_class, self.failure.message)
        last = next((line for line in reversed(last_lines) if line.strip()), "no output")
        return TrainerError(FailureClass.UNKNOWN, f"Preparing the rows failed with code {code}: {last.strip()[:500]}")


def facts_of_rows(directory: Path) -> dict[str, str]:
    """Facts for the status: how many rows, what became of the others, how long they are."""
    summary = read_summary(directory)
    facts = {"trainRows": str(summary.train_rows), "evalRows": str(summary.eval_rows), "truncatedRows": str(summary.truncated_rows)}
    if summary.is_excerpt:
        del facts["trainRows"], facts["truncatedRows"]
    facts |= {f"rowTokens{name.capitalize()}": f"{summary.tokens[name]:.0f}" for name in ("p50", "p95", "max") if name in summary.tokens}
    facts |= {"images": str(summary.images)} if summary.images else {}
    facts |= {"truncatedPrompts": str(summary.truncated_prompts)} if summary.truncated_prompts and not summary.is_excerpt else {}
    return facts | ({"skippedRows": str(summary.skipped_rows)} if summary.skipped_rows else {})


def _move_into(source: Path, directory: Path) -> None:
    for entry in source.iterdir():
        entry.rename(directory / entry.name)
