"""The FineTuneJob spec, resolved: what a user writes, completed by presets and defaults. The single source of the CRD schema."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, Name, Quantity, ResumeClass, SecretRef, Tier, api_field
from finetune_api.models.lifecycle import Limits, PausePolicy, Retry
from finetune_api.models.methods import Dpo, Grpo, Kto, Method, Reward, RewardFunction
from finetune_api.models.output import Output
from finetune_api.models.scheduling import (
    Affinity,
    DnsLabel,
    LabelKey,
    LabelValue,
    PodTemplate,
    RankTopology,
    ResourceClaim,
    Toleration,
)
from finetune_api.models.sources import AttachedAdapter, Cache, CheckpointSource, ConfigUri, Dataset, Model, PresetRef, Tokenizer
from finetune_api.models.training_method import MethodRef

__all__ = [
    "LORA_MODULES",
    "TARGET_SHORTHANDS",
    "Adapter",
    "AttachedAdapter",
    "Cache",
    "Checkpoint",
    "Dataset",
    "Distributed",
    "Dpo",
    "EarlyStopping",
    "Evaluation",
    "FineTuneJobSpec",
    "Grpo",
    "HuggingFaceSecret",
    "Kto",
    "Limits",
    "Logging",
    "MethodRef",
    "Model",
    "Output",
    "PausePolicy",
    "Precision",
    "PresetRef",
    "Quantization",
    "Resources",
    "Retry",
    "Reward",
    "RewardFunction",
    "Secrets",
    "Tokenizer",
    "Toleration",
    "Tracker",
    "Training",
]

FREE, SCHEDULE, IDENTITY = ResumeClass.FREE, ResumeClass.SCHEDULE, ResumeClass.IDENTITY
GENERAL, ADVANCED = Tier.GENERAL, Tier.ADVANCED

ModuleName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")]
ArgumentName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ArgumentValue = Annotated[str, StringConstraints(max_length=1024)]
LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head")
"""The modules a LoRA adapter may target by name (G-08)."""
TARGET_SHORTHANDS = ("basic", "enhanced", "full", "all-linear")
"""Names for sets of modules (G-09); a shorthand stands alone in the list."""


class Adapter(ApiModel):
    """LoRA or full fine-tuning."""

    type: Literal["lora", "full"] = api_field(resume=IDENTITY, tier=GENERAL, requirement="B-08 B-09 G-01 X31")
    """lora trains a small adapter, full trains all weights."""
    rank: int = api_field(
        resume=IDENTITY,
        ge=1,
        le=512,
        tier=GENERAL,
        recommended="4-8 simple, 16 general, 32-64 complex; warned above 64",
        requirement="G-02 G-03 X15",
    )
    """LoRA rank r."""
    alpha: int | None = api_field(
        default=None, resume=IDENTITY, ge=1, le=512, tier=GENERAL, recommended="rank or 2 x rank", requirement="G-04 G-05 X16"
    )
    """LoRA alpha; the adapter is scaled by alpha / rank. Unset: rank (scaling 1)."""
    dropout: float = api_field(
        resume=IDENTITY, ge=0, le=1, tier=ADVANCED, recommended="0.0, or 0.05-0.1 for little data", requirement="G-06 X17"
    )
    """LoRA dropout."""
    target_modules: list[ModuleName] = api_field(
        resume=IDENTITY, tier=ADVANCED, min_length=1, max_length=64, requirement="G-07 G-08 G-09 X18"
    )
    """Modules that get an adapter: q_proj k_proj v_proj o_proj gate_proj up_proj down_proj embed_tokens lm_head, or one of basic (q,v),
    enhanced (q,k,v,o), full (all seven projections), all-linear."""
    allow_custom_modules: bool = api_field(resume=IDENTITY, tier=ADVANCED, requirement="G-08")
    """Accept other module names in targetModules; checked against the model."""
    peft_config: ConfigUri | None = api_field(default=None, resume=IDENTITY, tier=ADVANCED, requirement="G-10")
    """A PEFT adapter_config.json that replaces rank, alpha, dropout and targetModules."""
    attach: AttachedAdapter | None = api_field(default=None, tier=ADVANCED, requirement="R-12")
    """An adapter to go on from, made for the same model. It brings rank, alpha, dropout and targetModules with it; optimizer, schedule and
    step count begin anew. Not recommended where checkpoint.resumeFrom can do it. Unset: a new adapter."""


class Quantization(ApiModel):
    """How the frozen base model of an adapter is held in memory."""

    mode: Literal["auto", "none", "4bit"] = api_field(resume=IDENTITY, requirement="B-10 I-06 I-07 N-02")
    """4bit = QLoRA: the base model in 4 bits (nf4, doubly quantised), a LoRA adapter over it. auto = 4bit where the model would not fit the
    GPU otherwise, none on CPU; the reason is in the condition QuantizationDecided."""


class Precision(ApiModel):
    """Number formats."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = api_field(resume=IDENTITY, requirement="I-01 X27")
    """auto = bfloat16 where the GPU has it (Ampere or newer), else float16; float32 on CPU."""
    fp16: bool = api_field(resume=IDENTITY, requirement="I-02")
    """FP16 autocast over float32 trainable weights. Ignored on CPU with a warning. Not with bf16."""
    bf16: bool = api_field(resume=IDENTITY, requirement="I-03")
    """BF16 autocast; Ampere or newer, or CPU. Not with fp16."""
    tf32: bool = api_field(resume=IDENTITY, requirement="I-04")
    """TF32 matrix products; Ampere or newer."""


class Training(ApiModel):
    """Hyperparameters."""

    batch_size: int = api_field(
        resume=IDENTITY,
        tier=GENERAL,
        ge=1,
        le=128,
        recommended="1-2 at 4 GB, 2-4 at 8 GB, 4-8 at 16 GB, 8-16 from 24 GB; warned above 15",
        unit="rows per device",
        requirement="F-01 F-02 F-03 F-04 X01 X02",
    )
    """Rows per device and step."""
    grad_accum_steps: int = api_field(resume=IDENTITY, tier=GENERAL, ge=1, le=256, unit="steps", requirement="F-05 F-06 X03 X04")
    """Batches added up before one optimizer step. Effective batch = batchSize x gradAccumSteps x ranks."""
    max_seq_length: int = api_field(
        resume=IDENTITY,
        tier=GENERAL,
        ge=0,
        le=1048576,
        multiple_of=8,
        unit="tokens",
        recommended="512-1024 for dialogues",
        requirement="F-07 F-08 X09",
    )
    """Longest sequence; longer rows are cut. 128-8192 (more with longContext), 0 = the model's context,
    at most 8192 without longContext."""
    long_context: bool = api_field(resume=IDENTITY, tier=ADVANCED, requirement="F-07 X09")
    """Allow maxSeqLength above 8192, up to the model's context."""
    learning_rate: float = api_field(
        resume=SCHEDULE, tier=GENERAL, ge=1e-6, le=0.1, recommended="LoRA 1e-4..5e-4, full 1e-5..5e-5", requirement="F-11 F-12 F-13 X05"
    )
    """Peak learning rate."""
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"] = api_field(
        resume=IDENTITY, tier=GENERAL, requirement="F-14 F-15"
    )
    """Optimizer; the 8-bit ones save GPU memory."""
    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts"] = api_field(
        resume=SCHEDULE, tier=GENERAL, requirement="F-16"
    )
    """Learning rate schedule."""
    lr_cosine_cycles: int = api_field(resume=SCHEDULE, tier=ADVANCED, ge=1, le=10, unit="cycles", requirement="F-17")
    """Cycles of cosine_with_restarts; not used by other schedules."""
    epochs: int = api_field(
        resume=SCHEDULE,
        tier=GENERAL,
        ge=1,
        le=100,
        recommended="3-10 below 1000 rows, 2-5 to 10000, 1-3 above",
        requirement="F-18 F-19 F-20 X06",
    )
    """Passes over the data, unless maxSteps decides."""
    max_steps: int = api_field(resume=SCHEDULE, ge=-1, le=100000, unit="optimizer steps", requirement="F-21 F-22 F-23 X08")
    """Stop after this many optimizer steps; wins over epochs. -1 = epochs decide."""
    max_steps_mode: Literal["override", "cap"] = api_field(resume=SCHEDULE, tier=ADVANCED, requirement="F-22 X07")
    """override: maxSteps replaces epochs. cap: whichever ends first."""
    weight_decay: float = api_field(resume=SCHEDULE, tier=ADVANCED, ge=0, le=1, requirement="F-24")
    """L2 weight decay."""
    warmup_ratio: float = api_field(resume=SCHEDULE, ge=0, le=1, recommended="0.05-0.1", requirement="F-25 F-28 X13")
    """Share of all steps in which the learning rate rises from 0; used when warmupSteps is 0."""
    warmup_steps: int = api_field(resume=SCHEDULE, ge=0, le=10000, unit="optimizer steps", requirement="F-26 F-27 X12 X13")
    """Steps in which the learning rate rises from 0. Above 0 it wins over warmupRatio."""
    max_grad_norm: float = api_field(resume=SCHEDULE, tier=ADVANCED, ge=0.1, le=10, recommended="0.5-5", requirement="F-29 X14")
    """Gradients are clipped to this norm."""
    seed: int = api_field(resume=IDENTITY, tier=GENERAL, ge=0, le=999999, requirement="F-30")
    """Seed of weights, shuffling, splits and dropout: same seed, same run."""
    gradient_checkpointing: bool = api_field(resume=IDENTITY, tier=GENERAL, requirement="I-05")
    """Recompute activations in the backward pass: less memory, about a fifth slower."""
    backend: Literal["standard", "optimized"] = api_field(resume=IDENTITY, requirement="B-12 B-13 M-06 X35 AC-42")
    """optimized computes the same faster: packed rows without padding and mask, fused kernels for layers and optimizer; it packs unless
    dataset.packing is written. Whole copies only (strategy none or ddp). What a device or model does not have is named in the condition
    OptimizedBackend, and training goes on without it."""
    extra_args: dict[ArgumentName, ArgumentValue] | None = api_field(
        default=None, resume=IDENTITY, tier=ADVANCED, max_length=32, requirement="F-32"
    )
    """Arguments of TRL and transformers that have no field, by their names there; values are texts, as in an environment
    (neftune_noise_alpha: "5"). Names that a field decides, and those that would break a run, are refused with what to use instead."""


class Resources(ApiModel):
    """What each replica gets."""

    device: Literal["gpu", "cpu"] = api_field(resume=IDENTITY, tier=GENERAL, requirement="L-01 L-13 L-16")
    """gpu asks for nvidia.com/gpu, or for what the gpuType says; cpu trains without one."""
    gpu_type: Name | None = api_field(default=None, tier=GENERAL, requirement="L-02")
    """A GpuType of the cluster (kubectl finetune gpus): its nodes, its tolerations, its resource and, for status.usage.cost, its price.
    Kept as it was when the job first ran with it. Unset: any node with nvidia.com/gpu. Not with device cpu."""
    gpus_per_replica: int = api_field(tier=GENERAL, ge=1, le=16, unit="GPUs per pod", requirement="L-03")
    """Limit of nvidia.com/gpu, or of the gpuType's resource, of each pod; not used on cpu."""
    gpu_memory: Quantity | None = api_field(default=None, requirement="N-01 N-02")
    """Memory of one GPU, for example 80Gi: preflight then says beforehand whether the job fits. Unset: that of the gpuType; without
    one read from the GPU at start."""
    memory_probe: bool | None = api_field(default=None, tier=ADVANCED, requirement="N-01 F-04")
    """Run the longest batch once before the first step, so that memory that will not do fails the run within a minute; it changes no
    number of the training. Methods sft and pretrain; not with ZeRO and not with torch_compile. Unset: on gpu."""
    processes_per_replica: int | None = api_field(default=None, ge=1, le=16, unit="ranks per pod", requirement="M-01 M-05")
    """Training processes per pod. Unset: gpusPerReplica, 1 on cpu."""
    cpu: Quantity | None = api_field(default=None, requirement="L-16")
    """CPU request of each pod."""
    memory: Quantity | None = api_field(default=None, requirement="Z-04")
    """Memory request and limit of each pod. Unset: with distributed.strategy zero2_offload and zero3_offload on gpu, what preflight finds
    them to need (status.estimate.memory.podBytes) is requested, without a limit."""
    ephemeral_storage: Quantity | None = api_field(default=None, tier=ADVANCED, requirement="J-06")
    """Local disk of each pod, request and limit: checkpoints, and models and rows where cache.claimName is unset. Preflight says when it
    is too small. Unset: no limit but the node's."""
    shared_memory: Quantity | None = api_field(default=None, requirement="E-26")
    """Size limit of /dev/shm. Unset: half of the node's memory."""
    image: str | None = api_field(default=None, max_length=512, requirement="L-11")
    """Trainer image. Unset: the operator's."""
    node_selector: dict[LabelKey, LabelValue] | None = api_field(default=None, max_length=16, requirement="L-02")
    """Labels a node must have."""
    tolerations: list[Toleration] | None = api_field(default=None, max_length=16, requirement="L-02")
    """Taints the pods tolerate."""
    priority_class_name: Name | None = api_field(default=None, requirement="L-09")
    """PriorityClass of the pods."""
    runtime_class_name: Name | None = api_field(default=None, requirement="L-09")
    """RuntimeClass of the pods, for example nvidia."""
    affinity: Affinity | None = api_field(default=None, tier=ADVANCED, requirement="L-02 L-09")
    """Kubernetes' affinity, for the pods that train."""
    topology: RankTopology | None = api_field(default=None, tier=ADVANCED, requirement="L-09")
    """How the pods of the job lie to each other: together for speed, or apart."""
    resource_claims: list[ResourceClaim] | None = api_field(default=None, tier=ADVANCED, max_length=8, requirement="L-09")
    """Devices asked for by Dynamic Resource Allocation."""
    pod_template: PodTemplate | None = api_field(default=None, tier=ADVANCED, requirement="L-09")
    """Labels, annotations, variables and the scheduler of the pods."""
    queue: DnsLabel | None = api_field(default=None, requirement="L-06 L-09")
    """Kueue's LocalQueue in the job's namespace. The run then waits for its quota, and may be preempted and admitted again."""
    queue_priority_class: Name | None = api_field(default=None, requirement="L-06 L-09")
    """Kueue's WorkloadPriorityClass: which job goes first, and which one is preempted."""


class Distributed(ApiModel):
    """How ranks work together."""

    strategy: Literal["auto", "none", "ddp", "fsdp", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"] = api_field(
        resume=IDENTITY, requirement="M-01 M-02 M-05 X34"
    )
    """none: one rank. ddp: a whole copy per rank. fsdp: weights, gradients and optimizer split over the ranks. zero1, zero2, zero3:
    DeepSpeed splits the optimizer, also gradients, also weights; _offload keeps them in main memory. auto: none for one rank, ddp for
    more where a GPU has room for a whole copy, else zero3_offload."""
    timeout_seconds: int = api_field(ge=60, le=7200, unit="seconds", requirement="M-05")
    """How long a collective operation may take before the group is given up."""


class Checkpoint(ApiModel):
    """When checkpoints are written, how many are kept, where a run starts."""

    strategy: Literal["steps", "epoch", "no"] = api_field(tier=GENERAL, requirement="R-01 R-14 X22")
    """Periodic saves. no: none, yet a pause always saves."""
    steps: int = api_field(tier=GENERAL, ge=1, le=10000, unit="optimizer steps", recommended="at most 100", requirement="R-02 X20")
    """Steps between saves with strategy steps."""
    interval_minutes: int = api_field(ge=1, le=1440, unit="minutes", requirement="R-03 X21")
    """Also save when the last save is this long ago; not with strategy no."""
    keep_last: int = api_field(ge=1, le=1000, recommended="2-5", requirement="R-04 R-05 X19")
    """Resumable checkpoints kept on the pod's disk and in the store; the best, the newest and that of the last pause are never removed."""
    keep_last_remote: int = api_field(ge=1, le=1000, requirement="R-04 X19")
    """Checkpoints kept in the store; beyond keepLast without optimizer state (weights only)."""
    resume_from: CheckpointSource | None = api_field(default=None, requirement="R-06 R-08 R-09 R-10")
    """Where the first attempt starts: latest, checkpoint-500, or the URI of a checkpoint directory. none or unset: from scratch."""
    auto_resume: bool = api_field(requirement="R-07 R-09")
    """Go on from the newest complete checkpoint after a pause or a failure. false: every attempt starts where the first one did."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="X-02")
    """Credentials of the store (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; optional AWS_ENDPOINT_URL, AWS_REGION,
    AWS_SESSION_TOKEN, ca.crt). Unset: the Secret finetune-storage."""


class Evaluation(ApiModel):
    """Evaluation during and after training; needs dataset.evalUri or dataset.evalRatio."""

    strategy: Literal["no", "steps", "epoch"] = api_field(resume=IDENTITY, requirement="S-01 S-02 X23")
    """When to evaluate during training."""
    steps: int = api_field(resume=IDENTITY, ge=1, le=10000, unit="optimizer steps", recommended="100-200", requirement="S-03 X24")
    """Steps between evaluations with strategy steps."""
    batch_size: int = api_field(ge=1, le=128, unit="rows per device", recommended="8", requirement="F-31")
    """Rows per device and evaluation step."""
    final: bool = api_field(requirement="S-04 X23")
    """Evaluate once more when training ends, if there is evaluation data."""


class EarlyStopping(ApiModel):
    """End when evaluation no longer improves."""

    patience: int = api_field(resume=IDENTITY, ge=0, le=100, unit="evaluations", requirement="S-06 S-07 S-10")
    """Evaluations without improvement after which training ends. 0 = off."""
    threshold: float = api_field(resume=IDENTITY, ge=0.001, le=1, requirement="S-08")
    """Smaller gains of eval_loss, measured against the best so far, count as none."""


class Tracker(ApiModel):
    """An experiment tracker; one that is down never stops training."""

    type: Literal["tensorboard", "wandb", "mlflow"] = api_field(requirement="T-03 T-10")
    """tensorboard writes event files into the store; wandb and mlflow send to a server."""
    uri: str | None = api_field(default=None, max_length=1024, requirement="T-03 T-10")
    """Server address (wandb base URL, mlflow tracking URI)."""
    project: str | None = api_field(default=None, max_length=128, requirement="T-03 T-10")
    """Project (wandb) or experiment (mlflow). Unset: the namespace."""
    secret_ref: SecretRef | None = api_field(default=None, requirement="T-03 T-10")
    """Secret with WANDB_API_KEY, or MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""


class Logging(ApiModel):
    """Logs and curves."""

    level: Literal["debug", "info", "warning", "error"] = api_field(requirement="T-01")
    """Log level of the trainer."""
    steps: int = api_field(ge=1, le=1000, unit="optimizer steps", recommended="5-10", requirement="T-02 X25")
    """Steps between log lines. Per-step values are recorded at every step whatever this says."""
    trackers: list[Tracker] = api_field(max_length=3, requirement="T-03 T-10")
    """Experiment trackers, each type once."""


class HuggingFaceSecret(ApiModel):
    """Access to the Hugging Face Hub."""

    secret_ref: SecretRef = api_field(requirement="X-01 X-04 X48")
    """Secret with HF_TOKEN (and HF_ENDPOINT for a private hub)."""


class Secrets(ApiModel):
    """Secrets passed to the trainer as files."""

    huggingface: HuggingFaceSecret | None = api_field(default=None)
    """Token for gated or private models and datasets."""


class FineTuneJobSpec(ApiModel):
    """One training: model, dataset and how. Only model and dataset are required; everything else has a default."""

    display_name: str | None = api_field(default=None, max_length=128, requirement="J-01 J-02 X43")
    """A free name for people, for example sft_20241201_143052. Of two jobs of the namespace that have the same, the later one says so:
    condition DisplayNameTaken."""
    preset_ref: PresetRef | None = api_field(default=None, requirement="K-01 K-03 K-12")
    """Start from a preset; fields of the job win over it."""
    method: Method | None = api_field(default=None, resume=IDENTITY, tier=GENERAL, requirement="B-01 B-03 B-04 B-05 B-06 B-07 H-01")
    """Built-in training method. sft = supervised fine-tuning; pretrain = continued pre-training on plain text; dpo = preferences;
    reward = a reward model; kto = good and bad answers; grpo = reinforcement by reward functions or a reward model. Not with methodRef."""
    method_ref: MethodRef | None = api_field(default=None, tier=GENERAL, requirement="B-01 B-02 A-02")
    """A method of the cluster's administrators, in place of a built-in one: their image, their program."""
    model: Model = api_field(resume=IDENTITY, tier=GENERAL)
    dataset: Dataset = api_field(resume=IDENTITY, tier=GENERAL)
    cache: Cache = api_field()
    adapter: Adapter = api_field(tier=GENERAL)
    quantization: Quantization = api_field(tier=GENERAL)
    precision: Precision = api_field(tier=GENERAL)
    training: Training = api_field(tier=GENERAL)
    dpo: Dpo | None = api_field(default=None, tier=GENERAL)
    reward: Reward | None = api_field(default=None, tier=GENERAL)
    kto: Kto | None = api_field(default=None, tier=GENERAL)
    grpo: Grpo | None = api_field(default=None, tier=GENERAL)
    replicas: int = api_field(ge=0, le=64, schema_default=1, tier=GENERAL, unit="pods", requirement="L-03 Q-10")
    """Pods. 0 pauses the job until it is set back (kubectl scale); a pause that lasts through the next apply is suspend."""
    suspend: bool = api_field(schema_default=False, tier=GENERAL, requirement="Q-01 Q-10")
    """true pauses the job: a checkpoint is completed in the store, then all pods go."""
    desired_state: Literal["Running", "Stopped", "Cancelled"] = api_field(schema_default="Running", requirement="Q-06 Q-07 P-07 P-10 X38")
    """Stopped: a pause whose spec may be edited. Cancelled: ended for good; it cannot be left."""
    resources: Resources = api_field(tier=GENERAL)
    distributed: Distributed = api_field(tier=ADVANCED)
    checkpoint: Checkpoint = api_field()
    evaluation: Evaluation = api_field()
    early_stopping: EarlyStopping = api_field()
    logging: Logging = api_field()
    output: Output = api_field()
    secrets: Secrets = api_field()
    pause_policy: PausePolicy = api_field()
    retry: Retry = api_field()
    limits: Limits = api_field()

    @property
    def builtin_method(self) -> Method:
        """The method of a job that our trainer runs; a job with a methodRef never reaches it."""
        assert self.method is not None, "a job with a methodRef is another program's"
        return self.method
