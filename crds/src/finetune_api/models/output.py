"""What a finished job leaves: which weights, in which forms, where, and how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, Quantity, ResumeClass, SecretRef, Tier, api_field
from finetune_api.models.sources import StoreUri

GgufType = Literal["F16", "BF16", "Q8_0", "Q4_0"]
"""Number formats of GGUF files that are written here; K-quants need llama.cpp's own program."""
REPO_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
RepoId = Annotated[str, StringConstraints(max_length=193, pattern=REPO_PATTERN)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]


class Gguf(ApiModel):
    """GGUF files for llama.cpp, Ollama and others; for models of the Llama and Qwen families."""

    enabled: bool = api_field(requirement="W-04")
    """Write GGUF files of the final model (an adapter is merged for them)."""
    quant: list[GgufType] = api_field(min_length=1, max_length=4, requirement="W-04")
    """One file per number format. Q4_0 files keep embeddings and output head in Q8_0."""


class Export(ApiModel):
    """Work after training, in a pod without GPUs."""

    gguf: Gguf = api_field(requirement="W-04")
    samples: int = api_field(ge=0, le=20, unit="prompts", requirement="V-03")
    """Prompts of the data that the final model answers, for final/samples.json. 0 = none."""
    cpu: Quantity | None = api_field(default=None, requirement="L-03")
    """CPU request of the export pod. Unset: 500m."""
    memory: Quantity | None = api_field(default=None, requirement="L-03")
    """Memory request and limit of the export pod. Unset: a request of 1.25 x the model's weights + 2 GiB, no limit."""
    timeout_seconds: int = api_field(ge=60, le=604800, unit="seconds", requirement="W-01 W-03 W-04")
    """Longest time of one try."""


class Push(ApiModel):
    """Upload of the results to the Hugging Face Hub, or to a server that speaks its protocol."""

    enabled: bool = api_field(requirement="W-03")
    """Push once everything is in the store."""
    repo_id: RepoId | None = api_field(default=None, requirement="W-03")
    """Repository, org/name; made if it does not exist."""
    private: bool = api_field(requirement="W-03")
    """Visibility of a repository that is made here; an existing one stays as it is."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="W-03 X-01")
    """Secret with HF_TOKEN that may write (and HF_ENDPOINT for another server). Unset: secrets.huggingface.secretRef."""


class ModelCard(ApiModel):
    """What README.md, the model card, says beside what is known of the run."""

    title: str | None = api_field(default=None, min_length=1, max_length=128, requirement="J-01 W-03")
    """Name of the model. Unset: displayName, else the job's name."""
    license: Tag | None = api_field(default=None, requirement="W-03")
    """Licence identifier as the hub has them, e.g. apache-2.0."""
    language: list[Tag] | None = api_field(default=None, max_length=16, requirement="W-03")
    """Language codes, e.g. en."""
    tags: list[Tag] | None = api_field(default=None, max_length=16, requirement="W-03")
    """Tags beside those of method and library."""


class Output(ApiModel):
    """Where results go and how long they stay."""

    uri: StoreUri | None = api_field(default=None, resume=ResumeClass.IDENTITY, requirement="J-03 J-04 X44")
    """Prefix for everything the job writes. Unset: s3://<bucket>/<namespace>/<name>/<uid>."""
    use: Literal["best", "last"] | None = api_field(default=None, requirement="S-06 X59")
    """Which weights become the final adapter or model. Unset: best with early stopping, else last."""
    merge: bool = api_field(tier=Tier.OPTIONAL, requirement="W-01 W-02 AC-26")
    """Merge the adapter into the base model after training: whole weights in the base's precision, in files of at most 5 GB. The final
    adapter stays beside it."""
    export: Export = api_field()
    push: Push = api_field()
    model_card: ModelCard = api_field()
    retain: Literal["Keep", "Delete"] = api_field(requirement="Q-09")
    """What happens to the job's objects in the store when the job is deleted."""
    cleanup_timeout_seconds: int = api_field(ge=30, le=86400, unit="seconds", requirement="Q-09")
    """With retain Delete: how long the deletion of the job waits for the store."""
    retention_days: int = api_field(ge=0, le=3650, unit="days", requirement="Q-08 OP-15 AC-58")
    """How long what a cancelled job wrote stays in the store; the annotation finetune.dev/promoted keeps it for good."""
