"""``publish``: the data of a Dataset on a hub, as files that this trainer and the hub's own viewer read."""

from __future__ import annotations

import logging
import shutil
from typing import Final

import yaml

from finetune_api.contract import env
from finetune_api.contract.publish import PublishConfig, PublishResult
from finetune_api.defaults import BASE
from finetune_api.models.dataset import DatasetSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.resolve import Split, fetch_data
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import PodEnvironment, load_publish_config
from finetune_trainer.verbs.answer import Answer, Task, answer_task
from finetune_trainer.verbs.push import Destination, has_file, upload, writer

logger = logging.getLogger(__name__)
CARD: Final = "README.md"
TRAIN, EVALUATION = "train", "validation"
"""Names of the files, and of the splits they are."""


def run_publish(environment: PodEnvironment) -> int:
    """Publish and answer; returns the exit code."""

    def read() -> Task:
        config = load_publish_config(environment.run_config)
        return Task(0, "info", offline=False, work=lambda: publish(config, environment))

    return answer_task(environment, read)


def publish(config: PublishConfig, environment: PodEnvironment) -> Answer:
    """Upload the data in one commit.

    Raises :class:`TrainerError` that names address, Secret or repository, and what to do.
    """
    try:
        result = _publish(config, environment)
    except TrainerError as error:
        raise TrainerError(error.failure_class, error.message.replace("dataset.", "")) from error
    message = f"{result.files} files, {result.size_bytes} bytes are at {result.url}"
    return Answer(message, result.model_dump(mode="json", by_alias=True))


def _publish(config: PublishConfig, environment: PodEnvironment) -> PublishResult:
    secret = SecretFiles(environment.secrets_dir / env.SECRET_PUSH, config.hub_secret)
    to = Destination(config.repo_id, secret, block="publish", field="--to", kind="dataset")
    logger.info("publishing to %s as %s", config.repo_id, writer(to))
    directory = environment.work_dir / "publish"
    directory.mkdir(parents=True)
    splits = {TRAIN: _place(config.spec.uri, "dataset.uri", TRAIN, config, environment)}
    if config.spec.eval_uri is not None:
        splits[EVALUATION] = _place(config.spec.eval_uri, "dataset.evalUri", EVALUATION, config, environment)
    if not has_file(to, CARD):
        (directory / CARD).write_text(card(config.repo_id, config.spec, splits), encoding="utf-8")
    pushed = upload(to, directory, private=config.private, message="Data of a Dataset")
    return PublishResult(url=pushed.url, commit=pushed.commit, files=sum(map(len, splits.values())), size_bytes=pushed.size_bytes)


def _place(uri: str, field: str, split: str, config: PublishConfig, environment: PodEnvironment) -> list[str]:
    """Put the files of an address under the names they get; returns these."""
    spec = config.spec
    source = Source(uri, field, _secret(environment, env.SECRET_DATASET, spec.secret_ref.name if spec.secret_ref else None), spec.region)
    hub = spec.secrets.huggingface.secret_ref.name if spec.secrets is not None and spec.secrets.huggingface is not None else None
    context = SourceContext(
        cache_dir=environment.cache_dir,
        pvc_dir=environment.pvc_dir,
        configmap_dir=environment.configmap_dir,
        hub_secret=_secret(environment, env.SECRET_HUGGINGFACE, hub),
        offline=False,
    )
    found = fetch_data(source, context, Split(spec.split or str(BASE["dataset.split"]), spec.config)).files
    names = []
    for number, path in enumerate(found):
        name = f"{split}{path.suffix.lower()}" if len(found) == 1 else f"{split}-{number:05}-of-{len(found):05}{path.suffix.lower()}"
        shutil.copyfile(path, environment.work_dir / "publish" / name)
        names.append(name)
    return names


def _secret(environment: PodEnvironment, directory: str, name: str | None) -> SecretFiles:
    return SecretFiles(environment.secrets_dir / directory, name or f"({directory}: no Secret is named)")


def card(repo_id: str, spec: DatasetSpec, splits: dict[str, list[str]]) -> str:
    """README.md: which file is which split, and what the Dataset says of itself."""
    files = [{"split": split, "path": names if len(names) > 1 else names[0]} for split, names in splits.items()]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    title = spec.display_name or repo_id.rpartition("/")[2]
    return f"---\n{head}---\n# {title}\n" + (f"\n{spec.description}\n" if spec.description else "")
