"""Uploads a result to a hub: the last step of an export, tried again by itself when the hub is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import stamina

from finetune_api.contract.env import HF_ENDPOINT_KEY, HF_TOKEN_KEY, SECRET_PUSH
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.outputs.card import CARD
from finetune_trainer.sources.hub import HubOutageError
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import PodEnvironment, job_secrets

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)
OUTAGE_PATIENCE_SECONDS = 300.0
"""How long one call waits for the hub; then this try of the export ends, and the operator makes another."""
Result = TypeVar("Result")


class Pushed(NamedTuple):
    """What a hub has now."""

    repo_id: str
    url: str
    commit: str
    size_bytes: int


def push_secret(config: RunConfig, environment: PodEnvironment) -> SecretFiles:
    """The Secret that may write: ``output.push.secretRef``, else the one for reading."""
    own = config.spec.output.push.secret_ref
    return SecretFiles(environment.secrets_dir / SECRET_PUSH, own.name) if own is not None else job_secrets(config, environment).hub


def check_push(config: RunConfig, environment: PodEnvironment) -> str:
    """Whether the token is one: returns the name of its user (X-03).

    Raises :class:`TrainerError`: HuggingFaceAuth, HubUnavailable, or ConfigurationError when the job may not ask the hub at all.
    """
    if config.offline:
        raise configuration_error("output.push.enabled: offline is set, nothing can be pushed; set it to false")
    secret = push_secret(config, environment)
    api = _api(secret)
    user = _ask(config, secret, api.whoami)
    return str(user.get("name", ""))


def push(config: RunConfig, environment: PodEnvironment, directory: Path, card: bytes) -> Pushed:
    """Upload a directory in one commit (more where the client splits large ones); files the hub has already are not sent again."""
    user = check_push(config, environment)
    wanted = config.spec.output.push
    assert wanted.repo_id is not None, "a rule asks for it"
    secret = push_secret(config, environment)
    api, repo_id = _api(secret), wanted.repo_id
    (directory / CARD).write_bytes(card)
    logger.info("pushing to %s as %s", repo_id, user)
    url = _ask(config, secret, lambda: api.create_repo(repo_id, private=wanted.private, exist_ok=True))
    message = f"{config.job.name}: step results of {config.job.namespace}/{config.job.name}"
    commit = _ask(config, secret, lambda: api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=message))
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return Pushed(repo_id, str(url), commit.oid, size)


def _api(secret: SecretFiles) -> HfApi:
    from huggingface_hub import HfApi, constants

    token = secret.read(HF_TOKEN_KEY)
    if token is None:
        raise TrainerError(
            FailureClass.HUGGING_FACE_AUTH, f"output.push: Secret {secret.name} does not exist or lacks the key {HF_TOKEN_KEY}."
        )
    endpoint = secret.read(HF_ENDPOINT_KEY)
    if endpoint is not None:
        # Xet is the hub's own; every other server takes large files over LFS. The client looks at this at each upload.
        constants.HF_HUB_DISABLE_XET = True
    return HfApi(endpoint=endpoint, token=token)


def _ask(config: RunConfig, secret: SecretFiles, request: Callable[[], Result]) -> Result:
    """Run a request: outages are waited for, refusals become an error that names the Secret and the repository."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        for attempt in stamina.retry_context(
            on=HubOutageError, attempts=None, timeout=OUTAGE_PATIENCE_SECONDS, wait_initial=0.5, wait_max=15.0
        ):
            with attempt:
                try:
                    return request()
                except (HTTPError, OSError, errors.HFValidationError) as error:
                    raise _translated(error, config, secret) from error
                except RuntimeError as error:  # the client wraps what goes wrong with a large file
                    if not isinstance(error.__cause__, HTTPError | OSError):
                        raise
                    raise _translated(error.__cause__, config, secret) from error
    except HubOutageError as error:
        raise TrainerError(FailureClass.HUB_UNAVAILABLE, f"output.push: the hub did not answer properly: {error}") from error
    raise AssertionError("unreachable: the retry context returns or raises")


def _translated(error: Exception, config: RunConfig, secret: SecretFiles) -> Exception:
    from huggingface_hub import errors

    repo_id = config.spec.output.push.repo_id
    if isinstance(error, errors.HFValidationError):
        return configuration_error(f"output.push.repoId {repo_id}: {error}")
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return TrainerError(
            FailureClass.HUGGING_FACE_AUTH,
            f"output.push.repoId {repo_id}: the hub refuses the key {HF_TOKEN_KEY} of Secret {secret.name} "
            f"({status or 'no such repository'}): it must be allowed to write there.",
        )
    if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
        return configuration_error(f"output.push.repoId {repo_id}: the hub answers {status}: {str(error)[:300]}")
    return HubOutageError(f"{type(error).__name__}: {error}"[:300])
