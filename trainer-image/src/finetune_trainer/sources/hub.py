"""``hf://org/name@revision``: repositories of the Hugging Face Hub or of a private one (``HF_ENDPOINT``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import stamina

from finetune_api.contract.env import HF_ENDPOINT_KEY, HF_TOKEN_KEY
from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.context import Source, SourceContext, source_error

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OUTAGE_PATIENCE_SECONDS = 300.0
RepoType = Literal["model", "dataset"]
Result = TypeVar("Result")


class HubOutageError(Exception):
    """The hub did not answer properly; it may a moment later."""


class HubSource(NamedTuple):
    """A parsed hub URI."""

    repo_id: str
    revision: str | None


class FilePatterns(NamedTuple):
    """Shell patterns that select files of a repository; empty = all."""

    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


class Snapshot(NamedTuple):
    """Files of a repository at one commit, in the local cache."""

    directory: Path
    commit: str


def parse_hub_uri(source: Source) -> HubSource:
    """Split ``hf://org/name@revision``; the revision may be a branch, a tag or a commit."""
    name, _, revision = source.uri.removeprefix("hf://").partition("@")
    if not name or name.count("/") > 1:
        raise source_error(source, "must look like hf://org/name or hf://org/name@revision.")
    return HubSource(name, revision or None)


def configure_hub(cache_dir: Path, *, offline: bool) -> None:
    """Set what huggingface_hub reads from the environment at its import: to be called before anything here."""
    os.environ["HF_HOME"] = str(cache_dir / "huggingface")
    os.environ["HF_HUB_OFFLINE"] = "1" if offline else "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def hub_api(context: SourceContext) -> HfApi:
    """Client with the job's token and endpoint, read anew from the Secret's files."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=context.hub_secret.read(HF_ENDPOINT_KEY), token=context.hub_secret.read(HF_TOKEN_KEY) or False)


def fetch_snapshot(
    source: Source, context: SourceContext, repo_type: RepoType, patterns: FilePatterns, *, pinned: str | None = None
) -> Snapshot:
    """Bring a repository's files into the cache, keyed by its commit; ``pinned`` is the commit an earlier attempt froze.

    Raises HuggingFaceAuth for missing rights, HubUnavailable when the hub stays out of reach for five minutes, the role's error for what
    does not exist.
    """
    parsed = parse_hub_uri(source)

    def download() -> Snapshot:
        path = hub_api(context).snapshot_download(
            parsed.repo_id,
            repo_type=repo_type,
            revision=pinned or parsed.revision,
            cache_dir=context.cache_dir / "hub",
            local_files_only=context.offline,
            allow_patterns=list(patterns.allow) or None,
            ignore_patterns=list(patterns.ignore) or None,
        )
        return Snapshot(Path(str(path)), Path(str(path)).name)

    return ask_hub(source, context, download)


def repository_files(source: Source, context: SourceContext, *, pinned: str | None = None) -> list[str]:
    """Names of a model repository's files, without fetching them."""
    parsed = parse_hub_uri(source)
    info = ask_hub(source, context, lambda: hub_api(context).model_info(parsed.repo_id, revision=pinned or parsed.revision))
    return [sibling.rfilename for sibling in info.siblings or []]


def ask_hub(source: Source, context: SourceContext, request: Callable[[], Result]) -> Result:
    """Run a request to the hub: outages are waited for, refusals become an error that names token, licence or repository."""
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        for attempt in stamina.retry_context(
            on=HubOutageError, attempts=None, timeout=OUTAGE_PATIENCE_SECONDS, wait_initial=0.5, wait_max=15.0
        ):
            with attempt:
                try:
                    return request()
                except (errors.LocalEntryNotFoundError, errors.HFValidationError, HTTPError) as error:
                    raise _translated(error, source, context) from error
    except HubOutageError as error:
        problem = f"the hub did not answer within {OUTAGE_PATIENCE_SECONDS:.0f} s: {error}"
        raise source_error(source, problem, FailureClass.HUB_UNAVAILABLE) from error
    raise AssertionError("unreachable: the retry context returns or raises")


def _translated(error: Exception, source: Source, context: SourceContext) -> Exception:
    """Our error for one of the hub's client."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return _auth_error(source, context, "the repository is gated and this token may not read it: accept its licence on the hub")
        case errors.RepositoryNotFoundError():
            return _auth_error(source, context, "no such repository, or it is private and this token may not see it")
        case errors.RevisionNotFoundError():
            return source_error(source, "the repository has no such revision.")
        case errors.LocalEntryNotFoundError() if context.offline:
            return source_error(source, "offline is set and the cache does not hold it: fill the cache claim first, or use another source.")
        case errors.HFValidationError():
            return source_error(source, f"no valid repository name: {_first_line(error)}")
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return _auth_error(
                source, context, f"the hub answers {error.response.status_code}: the token is not valid or lacks the right to read"
            )
        case _:
            return HubOutageError(_first_line(error))


def _auth_error(source: Source, context: SourceContext, problem: str) -> TrainerError:
    token = context.hub_secret.read(HF_TOKEN_KEY)
    have = f"the key {HF_TOKEN_KEY} of Secret {context.hub_secret.name} is used" if token else "no token is set"
    fix = f"set secrets.huggingface.secretRef to a Secret whose key {HF_TOKEN_KEY} may read it"
    return source_error(source, f"{problem} ({have}; {fix}).", FailureClass.HUGGING_FACE_AUTH)


def _first_line(error: Exception) -> str:
    """Kind and first line of an error, bounded."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]
