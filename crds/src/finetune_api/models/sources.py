"""Where a job takes things from: preset, model, tokenizer, data, caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, Name, Quantity, ResumeClass, SecretRef, Tier, api_field

IDENTITY = ResumeClass.IDENTITY
GENERAL, ADVANCED = Tier.GENERAL, Tier.ADVANCED

MODEL_PATTERN = r"^(hf|s3|gs|pvc|https)://[^\s]+$"
MODEL_OR_REF_PATTERN = r"^((hf|s3|gs|pvc|https)://|ref:)[^\s]+$"
DATA_PATTERN = r"^(hf|s3|gs|pvc|https|configmap)://[^\s]+$"
DATA_OR_REF_PATTERN = r"^((hf|s3|gs|pvc|https|configmap)://|ref:)[^\s]+$"
CONFIG_PATTERN = r"^(s3|gs|pvc|https|configmap)://[^\s]+$"
STORE_PATTERN = r"^(s3|gs)://[^\s/]+(/[^\s]*)?$"
RESUME_PATTERN = r"^(latest|none|checkpoint-[0-9]+|(s3|gs|pvc)://[^\s]+)$"
ModelUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=MODEL_PATTERN)]
ModelOrRef = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=MODEL_OR_REF_PATTERN)]
"""In a resolved job always an address: what a BaseModel's name stands for."""
DataUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=DATA_PATTERN)]
DataOrRef = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=DATA_OR_REF_PATTERN)]
"""Likewise: what a Dataset's name stands for."""
ConfigUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=CONFIG_PATTERN)]
StoreUri = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=STORE_PATTERN)]
CheckpointSource = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=RESUME_PATTERN)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=128)]
DataFormat = Literal["auto", "messages", "sharegpt", "alpaca", "prompt-completion", "preference", "openai-dpo", "text", "vlm-zip"]
ModelType = Literal["LLM", "VLM"]


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

    uri: ModelOrRef = api_field(resume=IDENTITY, tier=GENERAL, requirement="C-01 C-02 C-05 C-06 C-10 C-11 X47")
    """Directory in Hugging Face format: hf://org/name@revision, s3://bucket/path, gs://bucket/path, pvc://claim/path,
    https://host/file.tar; or ref:name, a BaseModel of the cluster (kubectl get basemodels). GGUF files cannot be trained."""
    type: ModelType | None = api_field(default=None, resume=IDENTITY, tier=GENERAL, requirement="B-11 C-07 OP-17")
    """VLM trains language and vision, of a vision-language model; LLM the language alone: of such a model the vision tower and
    the projector stay as they are. Unset: that of the BaseModel; without one VLM where the model's config.json has a vision part, else
    LLM; status.facts.modelType says which."""
    tokenizer: Tokenizer | None = api_field(default=None, resume=IDENTITY, requirement="C-14")
    """Another tokenizer, of a vision-language model with its image processor. Unset: the model's own."""
    trust_remote_code: bool = api_field(default=False, resume=IDENTITY, tier=ADVANCED, requirement="C-05 C-06")
    """Run Python code that lies beside the weights or the tokenizer, for models the libraries do not know. Only where the administrator
    allows it (chart value trainer.trustRemoteCode.allowed, or the BaseModel's trustRemoteCode); an hf:// address must then name a commit:
    hf://org/name@<40 hex digits>."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="X-02")
    """Credentials for s3:// and gs:// (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or https:// (key TOKEN). Unset:
    the store's own for s3:// and gs://."""
    region: str | None = api_field(default=None, max_length=64, requirement="X45")
    """Region of the bucket."""


class AttachedAdapter(ApiModel):
    """A LoRA adapter that training goes on from."""

    uri: ModelUri = api_field(resume=IDENTITY, tier=ADVANCED, requirement="R-12")
    """Directory with adapter_config.json and adapter_model.safetensors: hf://org/name@revision, s3://bucket/path (another job's final
    adapter or one of its checkpoints), gs://bucket/path, pvc://claim/path."""
    secret_ref: SecretRef | None = api_field(default=None, tier=ADVANCED, requirement="R-12 X-02")
    """Credentials for s3:// and gs:// (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or https:// (key TOKEN). Unset:
    the store's own for s3:// and gs://."""
    region: str | None = api_field(default=None, max_length=64, tier=ADVANCED, requirement="R-12 X45")
    """Region of the bucket."""


class DataSource(ApiModel):
    """One of several sources of rows (D-17)."""

    uri: DataUri = api_field(resume=IDENTITY, requirement="D-17")
    """File or directory, as dataset.uri."""
    weight: float | None = api_field(default=None, resume=IDENTITY, ge=0.01, le=100, requirement="D-17")
    """How often each row is trained per epoch: 2 = twice, 0.5 = a half chosen by the seed. Unset: 1."""
    max_samples: int | None = api_field(default=None, resume=IDENTITY, ge=1, le=100000, unit="rows", requirement="D-17 E-21")
    """Use at most this many rows of this source. Unset: all."""
    split: Annotated[str, StringConstraints(max_length=64)] | None = api_field(default=None, resume=IDENTITY, requirement="D-16")
    """Split of a hub dataset. Unset: dataset.split."""
    config: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None, resume=IDENTITY, requirement="D-08")
    """Configuration (subset) of a hub dataset."""
    format: DataFormat | None = api_field(default=None, resume=IDENTITY, requirement="X49")
    """How a row is read. Unset: auto."""
    prompt_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the input."""
    output_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the expected output."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="D-14")
    """Credentials for s3://, gs:// and https://. Unset: dataset.secretRef."""
    region: str | None = api_field(default=None, max_length=64, requirement="D-15 X45")
    """Region of the bucket. Unset: dataset.region."""


class Dataset(ApiModel):
    """What is trained on, and how rows become examples."""

    uri: DataOrRef = api_field(resume=IDENTITY, tier=GENERAL, requirement="D-01 D-04 D-07 D-08 D-09 D-10 D-11")
    """File or directory of JSONL, JSON, CSV, Parquet or text, or a ZIP with images (format vlm-zip): hf://org/name@revision,
    s3://bucket/file.jsonl, gs://, pvc://claim/path, https://, configmap://name/key; or ref:name, a Dataset of the namespace (kubectl
    get datasets), which then says format, columns, split, config, region, secretRef and evalUri."""
    split: Annotated[str, StringConstraints(max_length=64)] = api_field(resume=IDENTITY, requirement="D-16")
    """Split of a hub dataset, and of a directory in which files of several splits are named by them (train.jsonl and test.jsonl)."""
    config: Annotated[str, StringConstraints(max_length=128)] | None = api_field(default=None, resume=IDENTITY, requirement="D-08")
    """Configuration (subset) of a hub dataset."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="D-14")
    """Credentials for s3:// and gs:// (required there) or https://."""
    region: str | None = api_field(default=None, max_length=64, requirement="D-15 X45")
    """Region of the bucket; required for s3:// and gs://."""
    weight: float = api_field(resume=IDENTITY, ge=0.01, le=100, requirement="D-17")
    """How often each row of uri is trained per epoch beside those of additional: 2 = twice, 0.5 = a half chosen by the seed."""
    additional: list[DataSource] | None = api_field(default=None, max_length=8, resume=IDENTITY, requirement="D-17")
    """Further sources whose rows are merged with those of uri."""
    format: DataFormat = api_field(resume=IDENTITY, tier=GENERAL, requirement="E-01 E-02 E-03 E-04 E-05 E-06 E-07 X49")
    """How a row is read: messages = OpenAI chat; sharegpt = conversations of from and value; alpaca = instruction, input, output;
    prompt-completion = two columns; preference = prompt, chosen, rejected; openai-dpo = input, preferred_output, non_preferred_output;
    text = one text; vlm-zip = a ZIP with train.jsonl at its root and the images its rows name. auto looks at the first row. See
    docs/how-to-data.md."""
    prompt_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the input, for example question. Setting it selects prompt-completion. Unset: prompt."""
    output_column: Column | None = api_field(default=None, resume=IDENTITY, requirement="E-05")
    """Column with the expected output, for example answer; of the better answer for methods dpo and reward. Unset: completion."""
    on_error: Literal["fail", "skip"] = api_field(resume=IDENTITY, requirement="E-01")
    """What becomes of a malformed row: fail = the job is refused, with file, line and field; skip = it is left out and counted."""
    system_prompt: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = api_field(
        default=None, resume=IDENTITY, requirement="E-11"
    )
    """System message of every example that has none of its own."""
    prompt_template: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = api_field(
        default=None, resume=IDENTITY, tier=ADVANCED, requirement="E-10"
    )
    """Wraps each prompt instead of the chat template: a text with the placeholders {prompt} and, if wanted, {system_prompt}; braces that
    are meant are doubled. For examples of one question and one answer. Unset: the chat template; without one, prompts as they are."""
    chat_template: Annotated[str, StringConstraints(min_length=1, max_length=16384)] | None = api_field(
        default=None, resume=IDENTITY, tier=ADVANCED, requirement="E-10"
    )
    """Chat template (Jinja) in place of the tokenizer's; saved with the result. Unset: the tokenizer's own."""
    assistant_only_loss: bool = api_field(resume=IDENTITY, requirement="E-02")
    """Learn the assistant's turns of a conversation only. false = every token of messages and sharegpt rows, as the library does; rows
    whose messages say so (loss, weight, train) learn the assistant's turns in any case."""
    eval_uri: DataUri | None = api_field(default=None, resume=IDENTITY, requirement="E-09 X29")
    """Separate evaluation data, same sources and formats as uri. Not together with evalRatio > 0."""
    eval_ratio: float = api_field(
        resume=IDENTITY,
        ge=0,
        le=1,
        recommended="0.1-0.2 below 1000 rows, 0.05-0.1 above 10000",
        requirement="E-15 E-16 E-18 E-19 E-20 X28",
    )
    """Share of rows split off at random (by seed) for evaluation, in steps of 0.01. 0 = no split; at least one row is left for training."""
    train_ratio: float | None = api_field(
        default=None, resume=IDENTITY, ge=0.01, le=1, recommended="above 0.8", tier=ADVANCED, requirement="E-15 E-17 X28"
    )
    """Share of rows to train on, chosen at random (by seed). With evalRatio at most 1; what is in neither is left out. Unset: all that
    evalRatio leaves."""
    max_samples: int = api_field(resume=IDENTITY, ge=-1, le=100000, unit="rows", requirement="E-21 E-22 X11")
    """Use at most this many rows. 0 and -1 mean all."""
    prompt_max_length: int = api_field(
        resume=IDENTITY, ge=1, le=131072, unit="tokens", recommended="256-2048", tier=ADVANCED, requirement="E-12 F-09 X10"
    )
    """Longer prompts are cut from the left; counted in status. The prompt of a conversation with one answer to learn is what comes before
    its last answer, unless the limit is not below training.maxSeqLength; one with several is bounded by that alone."""
    content_max_length: int | None = api_field(
        default=None, resume=IDENTITY, ge=1, le=131072, unit="tokens", recommended="256-2048", tier=ADVANCED, requirement="F-10 X10"
    )
    """Longer completions (the last answer of a conversation with one answer to learn) are cut from the right; with method grpo the longest
    answer that is generated. Unset: bounded by training.maxSeqLength alone, by half of it with method grpo."""
    image_max_pixels: int | None = api_field(
        default=None, resume=IDENTITY, ge=784, le=67108864, unit="pixels", recommended="200704-1003520", tier=ADVANCED, requirement="E-07"
    )
    """Images with more pixels (width x height) are scaled down to this many, so that they take fewer tokens. Unset: as the model's image
    processor does."""
    reshuffle: bool = api_field(resume=IDENTITY, requirement="E-23")
    """Shuffle anew at the start of each epoch. false = one order, fixed by the seed."""
    packing: bool = api_field(resume=IDENTITY, requirement="E-24")
    """Put several short examples into one sequence. Worth it when most examples are far shorter than maxSeqLength. Methods sft and
    pretrain only."""
    lazy_tokenize: bool = api_field(default=False, resume=IDENTITY, tier=ADVANCED, requirement="E-13 OP-16")
    """Tokenise rows when they are trained instead of before: training of a large file starts sooner, and each epoch tokenises again.
    Lengths are not known beforehand, so nothing is said of truncation. Method sft, without packing."""
    streaming: bool = api_field(default=False, resume=IDENTITY, tier=ADVANCED, requirement="E-14 OP-16 X30 AC-38")
    """Read rows of a public dataset of the hub (JSONL, Parquet, text) while training, without storing them; they are tokenised as with
    lazyTokenize and shuffled in windows of 2048. Needs training.maxSteps; evaluation data comes from evalUri alone. Method sft."""
    num_workers: int = api_field(ge=0, le=16, recommended="at most 9, and not above the pod's CPUs", requirement="E-25 E-26 X26")
    """Data loader worker processes per rank."""
    pin_memory: bool = api_field(requirement="E-27")
    """Page-locked host memory for loader batches; helps on GPUs with enough RAM."""

    @property
    def parts(self) -> list[DataSource]:
        """All sources of training rows, uri first; what additional ones leave open is the dataset's own."""
        own = DataSource(
            uri=self.uri,
            weight=self.weight,
            split=self.split,
            config=self.config,
            format=self.format,
            prompt_column=self.prompt_column,
            output_column=self.output_column,
            secret_ref=self.secret_ref,
            region=self.region,
        )
        inherited = {"weight": 1.0, "split": self.split, "format": "auto", "secret_ref": self.secret_ref, "region": self.region}
        return [own, *(part.model_copy(update=_open_values(part, inherited)) for part in self.additional or [])]


def _open_values(part: DataSource, values: Mapping[str, object]) -> dict[str, object]:
    """Those of some values that a source leaves open."""
    return {name: value for name, value in values.items() if getattr(part, name) is None}


class Cache(ApiModel):
    """Where models and prepared rows are kept between pods."""

    claim_name: Name | None = api_field(default=None, requirement="C-13 L-08")
    """PersistentVolumeClaim shared by the pods. Unset: an emptyDir per pod."""
    size_limit: Quantity | None = api_field(default=None, requirement="L-08")
    """Size of the emptyDir used when claimName is unset."""
