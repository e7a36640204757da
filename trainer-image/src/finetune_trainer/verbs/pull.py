"""``pull``: a model of a hub into a store, file by file through the pod's disk. What an earlier try brought is kept."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.pull import PULL_MANIFEST, PULL_STATE, PullConfig, PulledFile, PullRecord, PullResult
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.estimate.shape import read_shape
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.hub_files import KnownFile, Repository, fetch_file, list_repository
from finetune_trainer.sources.model_directory import CONFIG, check_model
from finetune_trainer.sources.remote_model import remote_files
from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.opening import open_store
from finetune_trainer.store.transfer import in_parallel
from finetune_trainer.supervisor.environment import PodEnvironment, load_pull_config
from finetune_trainer.verbs.answer import Answer, Task, answer_task
from finetune_trainer.vision import has_vision

logger = logging.getLogger(__name__)
PARALLEL_FILES = 2
"""One comes while the other goes; the pod's disk holds no more than these."""
TELL_SECONDS = 5.0
"""Between two lines on how far it is."""
OPTIONS = MappingProxyType({"secrets.huggingface.secretRef": "--hub-secret"})
"""Field that a message of the hub's sources names -> what it is called here."""
_NO_SECRET = "(--hub-secret is not given)"


def run_pull(environment: PodEnvironment) -> int:
    """Pull and answer; returns the exit code."""

    def read() -> Task:
        config = load_pull_config(environment.run_config)
        return Task(0, "info", offline=False, work=lambda: pull(config, environment))

    return answer_task(environment, read)


def pull(config: PullConfig, environment: PodEnvironment) -> Answer:
    """Bring a model into the store. Raises :class:`TrainerError` that names repository, token, bucket or file, and what to do."""
    try:
        result, warnings = _pull(config, environment)
    except TrainerError as error:
        message = error.message
        for name, option in OPTIONS.items():
            message = message.replace(name, option)
        raise TrainerError(error.failure_class, message) from error
    message = f"{result.files} files, {result.size_bytes} bytes of {config.uri} are at {result.uri}; {result.kept} files were there already"
    found = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Answer(message, found, warnings=[f"{condition}: {text}" for condition, text in warnings.items()])


def _pull(config: PullConfig, environment: PodEnvironment) -> tuple[PullResult, dict[str, str]]:
    hub_secret = SecretFiles(environment.secrets_dir / env.SECRET_HUGGINGFACE, config.hub_secret or _NO_SECRET)
    context = SourceContext(environment.cache_dir, environment.pvc_dir, environment.configmap_dir, hub_secret, offline=False)
    source = Source(config.uri, "model", hub_secret)
    repository = list_repository(source, context)
    pinned = source._replace(uri=f"hf://{repository.name}@{repository.commit}")
    files = remote_files(pinned, context)
    assert files is not None, "a hub can be looked at"
    warnings = check_model(pinned, files)
    shape = read_shape(files)
    store = open_store(config.target, SecretFiles(environment.secrets_dir / env.SECRET_STORE, config.store_secret))
    target = claim(store, PullRecord(contract_version=CONTRACT_VERSION, source=f"hf://{repository.name}", commit=repository.commit))
    kept = len(target.files)
    bring(target, pinned, context, repository, environment.work_dir / "pull")
    result = PullResult(
        uri=store.url(""),
        commit=repository.commit,
        files=len(target.files),
        size_bytes=sum(file.size for file in target.files.values()),
        kept=kept,
        model_type="VLM" if has_vision(json.loads(files.read(CONFIG, 0, files.sizes[CONFIG]))) else "LLM",
        parameters=shape.parameters if shape is not None else None,
        context_length=(shape.context or None) if shape is not None else None,
    )
    return result, warnings


@dataclass
class Target:
    """A place in a store that this model alone fills."""

    store: Store
    record: PullRecord
    """Which model; its own list of files is not used."""
    files: dict[str, PulledFile]
    """What is there and was compared, by name."""
    is_whole: bool
    """The manifest is there."""
    writing: threading.Lock = field(default_factory=threading.Lock)

    def add(self, file: PulledFile) -> None:
        """Take a file down as brought; a later try keeps it."""
        with self.writing:
            self.files[file.path] = file
            self.store.put(PULL_STATE, self._document())

    def begin(self) -> None:
        """From now on files are missing."""
        self.store.put(PULL_STATE, self._document())
        if self.is_whole:
            self.store.delete([PULL_MANIFEST])

    def complete(self) -> None:
        """All files are there."""
        self.store.put(PULL_MANIFEST, self._document())
        self.store.delete([PULL_STATE])

    def _document(self) -> bytes:
        return self.record.model_copy(update={"files": [self.files[name] for name in sorted(self.files)]}).to_json().encode()


def claim(store: Store, wanted: PullRecord) -> Target:
    """Look at what lies in the target.

    Raises :class:`TrainerError` (ConfigurationError) when it holds something else: another model, another commit, or files of somebody.
    """
    there = {info.key: info for info in store.list()}
    known = next((name for name in (PULL_MANIFEST, PULL_STATE) if name in there), None)
    if known is None:
        if there:
            raise configuration_error(f"--to {store.url('')}: {min(there)} lies there, which no pull brought; name a path that is empty.")
        return Target(store, wanted, {}, is_whole=False)
    try:
        found = PullRecord.model_validate_json(store.get(known))
    except ValidationError as error:
        raise configuration_error(f"--to {store.url('')}: {known} there cannot be read; name another path, or empty this one.") from error
    if (found.source, found.commit) != (wanted.source, wanted.commit):
        raise configuration_error(
            f"--to {store.url('')}: {found.source}@{found.commit} lies there, not {wanted.source}@{wanted.commit}; name another path, so "
            "that jobs which use it keep what they have, or empty this one."
        )
    intact = (
        file for file in found.files if file.path in there and (there[file.path].size, there[file.path].etag) == (file.size, file.etag)
    )
    return Target(store, wanted, {file.path: file for file in intact}, is_whole=known == PULL_MANIFEST)


def bring(target: Target, source: Source, context: SourceContext, repository: Repository, scratch: Path) -> None:
    """Bring what is missing. config.json comes last: until then no job takes the directory for a model."""
    missing = [file for file in repository.files if file.name not in target.files]
    if target.is_whole and not missing:
        return
    target.begin()

    def bring_one(file: KnownFile) -> None:
        try:
            fetched = fetch_file(source, context, repository, file, scratch)
            target.store.upload(file.name, fetched.path)
            fetched.path.unlink()
        except OSError as error:
            raise configuration_error(
                f"{file.name} ({file.size} bytes) does not go through the disk of the pod, which holds {PARALLEL_FILES} files at a time: "
                f"{error.strerror or error}; free the node's disk, or use another node."
            ) from error
        etag = next(info.etag for info in target.store.list(file.name) if info.key == file.name)
        target.add(PulledFile(path=file.name, size=fetched.size, sha256=fetched.sha256, etag=etag))

    with telling(target, repository, scratch):
        in_parallel(bring_one, [file for file in missing if file.name != CONFIG], workers=PARALLEL_FILES)
        in_parallel(bring_one, [file for file in missing if file.name == CONFIG], workers=1)
    target.complete()


@contextmanager
def telling(target: Target, repository: Repository, scratch: Path) -> Iterator[None]:
    """Say every few seconds, while it changes, how far it is."""
    ended = threading.Event()

    def tell() -> None:
        said = ""
        while not ended.wait(TELL_SECONDS):
            line = progress(target, repository, scratch)
            if line != said:
                logger.info("%s", line)
                said = line

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    logger.info("%s", progress(target, repository, scratch))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    logger.info("%s", progress(target, repository, scratch))


def progress(target: Target, repository: Repository, scratch: Path) -> str:
    """How far it is; what is on the pod's disk counts as half brought: it came, and has yet to go."""
    whole = sum(file.size or 0 for file in repository.files)
    there = sum(file.size for file in list(target.files.values()))
    half = sum(_size(path) for path in scratch.rglob("*")) // 2 if scratch.is_dir() else 0
    unit, name = (1e9, "GB") if whole >= 1e9 else (1e6, "MB")
    return f"{len(target.files)} of {len(repository.files)} files, {min(there + half, whole) / unit:.1f} of {whole / unit:.1f} {name}"


def _size(path: Path) -> int:
    """Bytes of a file; 0 of one that has gone meanwhile."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
