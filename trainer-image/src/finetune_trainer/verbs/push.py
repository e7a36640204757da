"""Uploads to a hub: results, the last step of an export, and datasets. Outages are waited for, refusals name field and Secret."""

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
from finetune_trainer.sources.hub import HubOutageError, RepoType
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import PodEnvironment, job_secrets

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)
OUTAGE_PATIENCE_SECONDS = 300.0
"""How long one call waits for the hub; then this try of the export ends, and the operator makes another."""
Result = TypeVar("Result")


class Destination(NamedTuple):
    """A repository that is written to."""

    repo_id: str
    secret: SecretFiles
    block: str = "output.push"
    """What messages call the whole."""
    field: str = "output.push.repoId"
    """What they call the repository."""
    kind: RepoType = "model"


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
    return writer(_destination(config, environment))


def push(config: RunConfig, environment: PodEnvironment, directory: Path, card: bytes) -> Pushed:
    """Upload a directory of results in one commit, with its card."""
    to = _destination(config, environment)
    user = check_push(config, environment)
    (directory / CARD).write_bytes(card)
    logger.info("pushing to %s as %s", to.repo_id, user)
    message = f"{config.job.name}: step results of {config.job.namespace}/{config.job.name}"
    return upload(to, directory, private=config.spec.output.push.private, message=message)


def writer(to: Destination) -> str:
    """Name of the token's user. Raises :class:`TrainerError`: HuggingFaceAuth, HubUnavailable."""
    api = _api(to)
    return str(_ask(to, api.whoami).get("name", ""))


def has_file(to: Destination, name: str) -> bool:
    """Whether the repository is there and has a file."""
    api = _api(to)
    return _ask(to, lambda: api.file_exists(to.repo_id, name, repo_type=to.kind))


def upload(to: Destination, directory: Path, *, private: bool, message: str) -> Pushed:
    """Upload a directory in one commit (more where the client splits large ones); files the hub has already are not sent again.

    A repository that does not exist is made; ``private`` counts for that one alone.
    """
    api, kind = _api(to), to.kind
    url = _ask(to, lambda: api.create_repo(to.repo_id, repo_type=kind, private=private, exist_ok=True))
    commit = _ask(to, lambda: api.upload_folder(repo_id=to.repo_id, repo_type=kind, folder_path=directory, commit_message=message))
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return Pushed(to.repo_id, str(url), commit.oid, size)


def _destination(config: RunConfig, environment: PodEnvironment) -> Destination:
    repo_id = config.spec.output.push.repo_id
    assert repo_id is not None, "a rule asks for it"
    return Destination(repo_id, push_secret(config, environment))


def _api(to: Destination) -> HfApi:
    from huggingface_hub import HfApi, constants

    token = to.secret.read(HF_TOKEN_KEY)
    if token is None:
        raise TrainerError(
            FailureClass.HUGGING_FACE_AUTH, f"{to.block}: Secret {to.secret.name} does not exist or lacks the key {HF_TOKEN_KEY}."
        )
    endpoint = to.secret.read(HF_ENDPOINT_KEY)
    if endpoint is not None:
        # Xet is the hub's own; every other server takes large files over LFS. The client looks at this at each upload.
        constants.HF_HUB_DISABLE_XET = True
    return HfApi(endpoint=endpoint, token=token)


def _ask(to: Destination, request: Callable[[], Result]) -> Result:
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
                    raise _translated(error, to) from error
                except RuntimeError as error:  # the client wraps what goes wrong with a large file
                    if not isinstance(error.__cause__, HTTPError | OSError):
                        raise
                    raise _translated(error.__cause__, to) from error
    except HubOutageError as error:
        raise TrainerError(FailureClass.HUB_UNAVAILABLE, f"{to.block}: the hub did not answer properly: {error}") from error
    raise AssertionError("unreachable: the retry context returns or raises")


def _translated(error: Exception, to: Destination) -> Exception:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        return configuration_error(f"{to.field} {to.repo_id}: {error}")
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return TrainerError(
            FailureClass.HUGGING_FACE_AUTH,
            f"{to.field} {to.repo_id}: the hub refuses the key {HF_TOKEN_KEY} of Secret {to.secret.name} "
            f"({status or 'no such repository'}): it must be allowed to write there.",
        )
    if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
        return configuration_error(f"{to.field} {to.repo_id}: the hub answers {status}: {str(error)[:300]}")
    return HubOutageError(f"{type(error).__name__}: {error}"[:300])
