"""BaseModel: an entry of the administrators' catalogue of models to start from."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, api_field
from finetune_api.models.sources import ModelType, ModelUri
from finetune_api.models.spec import FineTuneJobSpec


class BytesPerParameter(ApiModel):
    """GPU memory that the weights take, per parameter and by how they are held. kubectl finetune models and plan show it."""

    bfloat16: float | None = api_field(default=None, ge=0.01, le=16, unit="bytes", requirement="C-04")
    """Held in 16 bits, as quantization.mode none does. Unset: not known, or not stored so."""
    four_bit: float | None = api_field(default=None, ge=0.01, le=16, unit="bytes", requirement="C-04")
    """Held in 4 bits, as quantization.mode 4bit does: embeddings, output layer and vision part stay in 16. Unset: not known."""


class BaseModelSpec(ApiModel):
    """A model to start from: jobs choose it by model.uri ref:name."""

    display_name: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None)
    """A free name for people."""
    description: Annotated[str, StringConstraints(max_length=2048)] | None = api_field(default=None)
    """What it is good for, and what a job needs for it: a token, much memory. Shown where it is refused."""
    uri: ModelUri = api_field(requirement="C-01 C-02 C-05 C-06")
    """Directory in Hugging Face format: hf://org/name@revision, s3://bucket/path, gs://bucket/path, pvc://claim/path (of the job's
    namespace), https://host/file.tar. GGUF files cannot be trained."""
    type: ModelType = api_field(requirement="C-07 C-08")
    """Value of the job's model.type: LLM, or VLM for vision-language models."""
    parameters: int | None = api_field(default=None, ge=1, le=10**13, requirement="C-04")
    """Number of parameters, those of embeddings and vision part included. Unset: not known."""
    context_length: int | None = api_field(default=None, ge=1, le=10**8, unit="tokens", requirement="C-04")
    """Longest sequence, in tokens, that the model was made for. Unset: not known."""
    bytes_per_parameter: BytesPerParameter | None = api_field(default=None, requirement="C-04")
    eligible: bool = api_field(default=True, schema_default=True, requirement="C-03")
    """Jobs may begin to train it. false: new jobs are refused with the reason BaseModelNotEligible; those that have run go on."""
    deployed: bool = api_field(default=True, schema_default=True, requirement="C-03")
    """It is being served somewhere, so that adapters of it can be called; administrators, or what deploys models for them, say so. false:
    new jobs are refused with the reason BaseModelNotEligible; those that have run go on."""
    trust_remote_code: bool = api_field(default=False, schema_default=False, requirement="C-05 C-06")
    """Python code that lies beside the weights is run, in every job that chooses the model and does not set its model.trustRemoteCode to
    false. The chart value trainer.trustRemoteCode.allowed need not name the address. An hf:// address must then name a commit:
    hf://org/name@<40 hex digits>."""
    defaults: FineTuneJobSpec | None = api_field(default=None, requirement="C-02")
    """Values for jobs where neither the job nor its preset says otherwise, as in a preset: what this model needs, such as the names of its
    layers. They come before the defaults of method and adapter."""
