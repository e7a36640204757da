"""Where a job takes things from: preset, model, tokenizer, data, caches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, Name, Quantity, ResumeClass, SecretRef, Tier, api_field

IDENTITY = ResumeClass.IDENTITY
GENERAL, ADVANCED = Tier.GENERAL, Tier.ADVANCED

MODEL_PATTERN = r"^(hf|s3|gs|pvc|https)://[^\s]+$"
DATA_PATTERN = r"^(hf|s3|gs|pvc|https|configmap)://[^\s]+$"
CONFIG_PATTERN = r"^(s3|gs|pvc|https|configmap)://[^\s]+$"
STORE_PATTERN = r"^(s3|gs)://[^\s/]+(/[^\s]*)?$"
RESUME_PATTERN = r"^(latest|none|checkpoint-[0-9]+|(s3|gs|pvc)://[^\s]+)$"
ModelUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=MODEL_PATTERN)]
DataUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=DATA_PATTERN)]
ConfigUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=CONFIG_PATTERN)]
StoreUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=STORE_PATTERN)]
CheckpointSource = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=RESUME_PATTERN)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class PresetRef(ApiModel):
    """A saved, partial spec to start from."""

    name: Name = api_field(requirement="K-03")
    """Name of the preset."""
    kind: Literal["FineTunePreset", "ClusterFineTunePreset"] | None = api_field(default=None, requirement="K-01 K-03")
    """Kind of the preset. Unset: a FineTunePreset of this namespace, else a ClusterFineTunePreset."""


class Tokenizer(ApiModel):
    """A tokenizer other than the model's own (C-14)."""

    uri: ModelUri = api_field(resume=IDENTITY, requirement="C-14")
    """Directory with tokenizer files: hf://org/name@rev, s3://bucket/path, gs://bucket/path, pvc://claim/path."""


class Model(ApiModel):
    """The base model."""

    uri: ModelUri = api_field(resume=IDENTITY, tier=GENERAL, requirement="C-01 C-05 C-06 C-10 C-11 X47")
    """Directory in Hugging Face format: hf://org/name@revision, s3://bucket/path, gs://bucket/path, pvc://claim/path,
    https://host/file.tar. GGUF files cannot be trained."""
    tokenizer: Tokenizer | None = api_field(default=None, resume=IDENTITY, requirement="C-14")
    """Another tokenizer. Unset: the model's own."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="X-02")
    """Credentials for s3:// and gs:// (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or https:// (key TOKEN). Unset:
    the store's own for s3:// and gs://."""
    region: str | None = api_field(default=None, max_length=64, requirement="X45")
    """Region of the bucket."""


class Dataset(ApiModel):
    """What is trained on, and how rows become examples."""

    uri: DataUri = api_field(resume=IDENTITY, tier=GENERAL, requirement="D-01 D-07 D-08 D-09 D-10 D-11")
    """File or directory of JSONL, JSON, CSV, Parquet or text: hf://org/name@revision, s3://bucket/file.jsonl, gs://, pvc://claim/path,
    https://, configmap://name/key."""
    split: Annotated[str, StringConstraints(max_length=64)] = api_field(resume=IDENTITY, requirement="D-16")
    """Split of a hub dataset."""
    config: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None, resume=IDENTITY, requirement="D-08")
    """Configuration (subset) of a hub dataset."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="D-14")
    """Credentials for s3:// and gs:// (required there) or https://."""
    region: str | None = api_field(default=None, max_length=64, requirement="D-15 X45")
    """Region of the bucket; required for s3:// and gs://."""
    format: Literal["auto", "messages", "prompt-completion", "text"] = api_field(
        resume=IDENTITY, tier=GENERAL, requirement="E-01 E-02 E-05 X49"
    )
    """How a row is read: messages = OpenAI chat; prompt-completion = two columns; text = one text. auto looks at the first row."""
    prompt_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the input, for example question. Setting it selects prompt-completion. Unset: prompt."""
    output_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the expected output, for example answer. Unset: completion."""
    eval_uri: DataUri | None = api_field(default=None, resume=IDENTITY, requirement="E-09 X29")
    """Separate evaluation data, same sources and formats as uri. Not together with evalRatio > 0."""
    eval_ratio: float = api_field(
        resume=IDENTITY,
        ge=0,
        le=0.9,
        recommended="0.1-0.2 below 1000 rows, 0.05-0.1 above 10000",
        requirement="E-15 E-16 E-18 E-19 E-20 X28",
    )
    """Share of rows split off at random (by seed) for evaluation. 0 = no split."""
    max_samples: int = api_field(resume=IDENTITY, ge=-1, le=100000, unit="rows", requirement="E-21 E-22 X11")
    """Use at most this many rows. 0 and -1 mean all."""
    prompt_max_length: int = api_field(
        resume=IDENTITY, ge=1, le=131072, unit="tokens", recommended="256-2048", tier=ADVANCED, requirement="E-12 F-09 X10"
    )
    """Longer prompts are cut from the left; counted in status."""
    content_max_length: int | None = api_field(
        default=None, resume=IDENTITY, ge=1, le=131072, unit="tokens", recommended="256-2048", tier=ADVANCED, requirement="F-10 X10"
    )
    """Longer completions are cut from the right. Unset: bounded by training.maxSeqLength alone."""
    reshuffle: bool = api_field(resume=IDENTITY, requirement="E-23")
    """Shuffle anew at the start of each epoch. false = one order, fixed by the seed."""
    packing: bool = api_field(resume=IDENTITY, requirement="E-24")
    """Put several short examples into one sequence. Worth it when most examples are far shorter than maxSeqLength."""
    num_workers: int = api_field(ge=0, le=16, recommended="at most 9, and not above the pod's CPUs", requirement="E-25 E-26 X26")
    """Data loader worker processes per rank."""
    pin_memory: bool = api_field(requirement="E-27")
    """Page-locked host memory for loader batches; helps on GPUs with enough RAM."""


class Cache(ApiModel):
    """Where models and prepared rows are kept between pods."""

    claim_name: Name | None = api_field(default=None, requirement="C-13 L-08")
    """PersistentVolumeClaim shared by the pods. Unset: an emptyDir per pod."""
    size_limit: Quantity | None = api_field(default=None, requirement="L-08")
    """Size of the emptyDir used when claimName is unset."""
