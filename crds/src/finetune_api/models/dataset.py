"""Dataset: data that is looked at once and then named by jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.models.base import ApiModel, SecretRef, Tier, api_field
from finetune_api.models.sources import Column, DataFormat, DataUri, Tokenizer
from finetune_api.models.spec import Secrets
from finetune_api.models.status import Condition
from finetune_api.models.status_base import Short, StatusModel, Time


class DatasetSpec(ApiModel):
    """Data for jobs of its namespace, which choose it by dataset.uri ref:name."""

    display_name: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None, requirement="D-12")
    """A free name for people. Of two Datasets of the namespace that have the same, the later one says so: condition DisplayNameTaken."""
    description: Annotated[str, StringConstraints(max_length=2048)] | None = api_field(default=None, requirement="D-13")
    """What is in it, and what it is good for."""
    origin: Literal["upload", "synthesis", "session"] | None = api_field(default=None, requirement="D-02 D-03 D-07")
    """Where it comes from, for people: a file that somebody uploaded, rows that a program made, or a recorded session. Unset: not said."""
    uri: DataUri = api_field(tier=Tier.GENERAL, requirement="D-01 D-07 D-08 D-09 D-10 D-11")
    """File or directory of JSONL, JSON, CSV, Parquet or text, or a ZIP with images (format vlm-zip): hf://org/name@revision,
    s3://bucket/file.jsonl, gs://, pvc://claim/path, https://, configmap://name/key."""
    split: Annotated[str, StringConstraints(max_length=64)] | None = api_field(default=None, requirement="D-16")
    """Split of a hub dataset. Unset: train."""
    config: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None, requirement="D-08")
    """Configuration (subset) of a hub dataset."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="D-14")
    """Credentials for s3:// and gs:// (required there) or https://."""
    region: str | None = api_field(default=None, max_length=64, requirement="D-15")
    """Region of the bucket; required for s3:// and gs://."""
    secrets: Secrets | None = api_field(default=None, requirement="X-01")
    """Credentials of the hub, for data that is not public."""
    format: DataFormat | None = api_field(default=None, requirement="E-01 X49")
    """How a row is read, as in a job's dataset.format. Unset: auto, which looks at the first row."""
    prompt_column: Column | None = api_field(default=None, requirement="E-05")
    """Column with the input, for example question."""
    output_column: Column | None = api_field(default=None, requirement="E-05")
    """Column with the expected output, for example answer."""
    on_error: Literal["fail", "skip"] | None = api_field(default=None, requirement="E-01")
    """What becomes of a malformed row: fail = the Dataset is Invalid, with file, line and field; skip = it is left out and counted, as in
    jobs that do not say otherwise. Unset: fail."""
    eval_uri: DataUri | None = api_field(default=None, requirement="E-09")
    """Separate evaluation data, in the same format. Jobs with an evalRatio above 0 do not use it."""
    tokenizer: Tokenizer | None = api_field(default=None, requirement="E-28")
    """Model whose tokenizer counts the tokens of the first rows, for status.tokens. It decides nothing for jobs. Unset: not counted."""


class DatasetPhase(StrEnum):
    """Derived; a printer column."""

    PENDING = "Pending"
    VALIDATING = "Validating"
    READY = "ReadyForTraining"
    INVALID = "Invalid"


MAX_COLUMNS = 16
MAX_SAMPLES = 3
MAX_SAMPLE_BYTES = 512
"""Of a sample as JSON within JSON: a status, and the message it comes in, have little room."""


class DatasetTokens(StatusModel):
    """How long rows are, counted with spec.tokenizer."""

    rows: int
    """Rows that were counted: the first 2,000, 64 where rows may have images."""
    p50: int
    """Half of these rows have at most this many tokens."""
    p95: int
    """95 % of these rows have at most this many tokens."""
    max: int
    """Tokens of the longest of these rows: what training.maxSeqLength should not be below."""


class DatasetStatus(StatusModel):
    """Status of a Dataset: what the last look at the data found."""

    observed_generation: int = 0
    """metadata.generation the status was computed from."""
    phase: DatasetPhase = DatasetPhase.PENDING
    """Pending: waiting. Validating: a pod looks at the data. ReadyForTraining: jobs may use it. Invalid: something has to be changed."""
    reason: Short | None = None
    """Why it is there, in one word: Validated, DataError, StorageUnavailable, ..."""
    examples: int | None = None
    """Usable rows that were looked at."""
    is_whole: bool | None = None
    """false: there are more rows than were looked at (of large objects the beginning and the end are)."""
    eval_examples: int | None = None
    """Rows of evalUri."""
    malformed: int | None = None
    """Rows that cannot be used (onError: skip)."""
    format: Short | None = None
    """How rows are read; what auto comes to."""
    columns: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=MAX_COLUMNS)] = []
    """Columns of the first row; the first 16."""
    samples: Annotated[list[Annotated[str, StringConstraints(max_length=MAX_SAMPLE_BYTES)]], Field(max_length=MAX_SAMPLES)] = []
    """The first rows as JSON, cut to a readable length."""
    tokens: DatasetTokens | None = None
    """How long rows are, where spec.tokenizer is set."""
    digest: Short | None = None
    """sha256 of the data's content, where all of it was read: another one means other data."""
    last_validated: Time | None = None
    """When the data was last looked at."""
    looks: int = 0
    """Number of the last look; its pod was that of the Job <name>-look-<looks>."""
    looked_at: Short | None = None
    """Digest of the part of the spec that the last look was made from; unset while another one is due."""
    failures: int = 0
    """Looks in a row that found store or hub away."""
    next_look_at: Time | None = None
    """When the next look begins, while it waits."""
    last_handled_request: Short | None = None
    """Last value of the annotation finetune.dev/request that was acted on."""
    conditions: Annotated[
        list[Condition], Field(max_length=24, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    ] = []
    """Conditions as in the Kubernetes API conventions; Ready, Reconciling and Stalled as in kstatus. DatasetSmall, RowsSkipped: advice."""
