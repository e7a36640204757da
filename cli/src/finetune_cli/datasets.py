"""Datasets, as people read them, and the way of a file into one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from finetune_api.constants import API_VERSION, DATASET_KIND
from finetune_api.datasets import not_ready
from finetune_api.documents import validate_document
from finetune_api.models.dataset import DatasetPhase
from finetune_api.problems import SpecError
from finetune_cli.errors import CliError
from finetune_cli.portforward import reachable
from finetune_cli.store import StoredFile, endpoint_of
from finetune_cli.terminal import list_table

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt", ".text", ".zip")
"""Kinds of files that the trainer reads."""
DEFAULT_REGION: Final = "us-east-1"
BLOCK: Final = 1 << 20
STYLE: Final = {DatasetPhase.READY: "green", DatasetPhase.INVALID: "red"}


def is_ready(dataset: Mapping[str, Any]) -> bool:
    """Whether a job may use a Dataset now (D-04)."""
    return not_ready(str(dataset["metadata"]["name"]), dataset) is None


def render_datasets(datasets: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each Dataset, by name; those that are ready are marked (D-04)."""
    table = list_table()
    for column in ("", "NAME", "PHASE", "EXAMPLES", "FORMAT", "ORIGIN"):
        table.add_column(column, no_wrap=True)
    table.add_column("WHAT IT SAYS", overflow="fold")
    for dataset in sorted(datasets, key=lambda each: str(each["metadata"]["name"])):
        table.add_row(*_row(dataset))
    return table


def _row(dataset: Mapping[str, Any]) -> tuple[str | Text, ...]:
    spec, status = dataset["spec"], dataset.get("status") or {}
    phase = str(status.get("phase", DatasetPhase.PENDING))
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    said = spec.get("description") if is_ready(dataset) else ready.get("message")
    return (
        Text("✓", style="green") if is_ready(dataset) else "",
        str(dataset["metadata"]["name"]),
        Text(phase, style=STYLE.get(DatasetPhase(phase), "yellow")),
        f"{status['examples']:,}{'' if status.get('isWhole', True) else '+'}" if "examples" in status else "",
        str(status.get("format", "")),
        str(spec.get("origin", "")),
        " ".join(str(said or "").split()),
    )


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that shall become a Dataset."""

    file: Path
    name: str
    namespace: str
    store: str
    """``s3://bucket/prefix``."""
    secret: str
    more: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the spec."""


class Uploaded(NamedTuple):
    """What was done."""

    uri: str
    is_new: bool
    """False: the same content was there already."""
    created: bool
    """False: a Dataset of this name was there, and has the new file now."""


class Bucket(Protocol):
    """Where files go."""

    def files(self, prefix: str) -> list[StoredFile]:
        """All objects whose key starts with a prefix."""

    def write(self, key: str, path: Path) -> None:
        """Upload a file."""


def upload_file(asked: Upload, cluster: Cluster) -> Uploaded:
    """Upload a file under a key made of its content, and create or change the Dataset (D-02).

    What is stored under such a key never changes: jobs that were started from it find the same rows for ever.
    """
    document, is_new = _stored(asked, cluster)
    return Uploaded(document["spec"]["uri"], is_new, cluster.put_dataset(document))


def stored_spec(asked: Upload, cluster: Cluster) -> dict[str, Any]:
    """Upload a file; the spec of a Dataset of it, which is not made."""
    document, _ = _stored(asked, cluster)
    spec: dict[str, Any] = document["spec"]
    return spec


def _stored(asked: Upload, cluster: Cluster) -> tuple[dict[str, Any], bool]:
    """Upload a file under a key made of its content; the Dataset of it, and whether the file was not there before."""
    from finetune_cli.bucket import open_bucket

    key = content_key(asked)
    uri = f"{asked.store.rstrip('/')}/{key}"
    credentials = cluster.secret(asked.secret, asked.namespace)
    document = build_dataset(asked, uri, credentials.get("AWS_REGION") or DEFAULT_REGION)
    with reachable(endpoint_of(uri, credentials), cluster.access) as endpoint:
        return document, put_file(open_bucket(asked.store, credentials, endpoint), key, asked.file)


def put_file(bucket: Bucket, key: str, file: Path) -> bool:
    """Upload a file unless its key is there in its size. True: uploaded."""
    if StoredFile(key, file.stat().st_size) in bucket.files(key):
        return False
    bucket.write(key, file)
    return True


def content_key(asked: Upload) -> str:
    """Where the file goes below the store: the same content always to the same place.

    Raises:
        CliError: it is no file that can be trained on.
    """
    if asked.file.suffix.lower() not in SUFFIXES:
        raise CliError(f"{asked.file} is of no kind that can be read; it must end in one of {' '.join(SUFFIXES)}")
    digest = hashlib.sha256()
    try:
        with asked.file.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise CliError(f"{asked.file} cannot be read: {error.strerror}") from error
    return f"{asked.namespace}/datasets/{digest.hexdigest()[:32]}/rows{asked.file.suffix.lower()}"


def build_dataset(asked: Upload, uri: str, region: str) -> dict[str, Any]:
    """The Dataset of an uploaded file.

    Raises:
        CliError: its name or one of its fields is not valid.
    """
    if urlsplit(asked.store).scheme not in ("s3", "gs"):
        raise CliError(f"--store {asked.store} is no bucket; write s3://bucket or s3://bucket/prefix")
    spec = {"origin": "upload", "uri": uri, "secretRef": {"name": asked.secret}, "region": region, **asked.more}
    metadata = {"name": asked.name, "namespace": asked.namespace}
    document = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": metadata, "spec": spec}
    try:
        validate_document(document)
    except SpecError as error:
        raise CliError("; ".join(map(str, error.problems))) from error
    return document
