"""What is particular to a training method: one block each, which only that method may have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from finetune_api.models.base import ApiModel, ResumeClass, Tier, api_field
from finetune_api.models.sources import Column, ConfigUri, ModelUri

IDENTITY = ResumeClass.IDENTITY
GENERAL, ADVANCED = Tier.GENERAL, Tier.ADVANCED

Method = Literal["sft", "pretrain", "dpo", "reward", "kto", "grpo"]
METHOD_BLOCKS = ("dpo", "reward", "kto", "grpo")
"""Blocks of the spec named like the only method that may have them."""
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
JsonSchemaText = Annotated[str, StringConstraints(min_length=2, max_length=8192)]
FunctionName = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Dpo(ApiModel):
    """Direct preference optimisation: rows with a prompt, a chosen and a rejected answer."""

    beta: float = api_field(resume=IDENTITY, tier=GENERAL, ge=0.001, le=10, recommended="0.1-0.5", requirement="H-04 X50 AC-43")
    """How strongly the model is held to the reference: higher stays closer."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust"] = api_field(resume=IDENTITY, tier=ADVANCED, requirement="B-06")
    """sigmoid = the DPO paper's; hinge; ipo for a bounded margin; robust for labels of which some are wrong (see labelSmoothing)."""
    label_smoothing: float = api_field(resume=IDENTITY, tier=ADVANCED, ge=0, le=0.49, requirement="B-06")
    """Assumed share of rows whose answers are swapped; counts with sigmoid and robust."""
    reference_model: ModelUri | None = api_field(default=None, resume=IDENTITY, tier=ADVANCED, requirement="H-02")
    """Model to stay close to, read with model.secretRef. Unset: the base model as it was."""


class Kto(ApiModel):
    """Kahneman-Tversky optimisation: rows with a prompt, one answer and a label that says whether it is good."""

    beta: float = api_field(resume=IDENTITY, tier=GENERAL, ge=0.001, le=10, recommended="0.1", requirement="B-01")
    """How strongly the model is held to the reference: higher stays closer."""
    desirable_weight: float = api_field(
        resume=IDENTITY, ge=0.01, le=100, recommended="such that desirable weight x rows is 1 to 1.33 times undesirable", requirement="B-01"
    )
    """Weight of rows with label true."""
    undesirable_weight: float = api_field(resume=IDENTITY, ge=0.01, le=100, requirement="B-01")
    """Weight of rows with label false."""
    reference_model: ModelUri | None = api_field(default=None, resume=IDENTITY, tier=ADVANCED, requirement="H-02")
    """Model to stay close to, read with model.secretRef. Unset: the base model as it was."""


class Reward(ApiModel):
    """Reward modelling: rows with a prompt, a chosen and a rejected answer; the result scores an answer with one number."""

    center_rewards_coefficient: float = api_field(resume=IDENTITY, tier=ADVANCED, ge=0, le=1, recommended="0.01", requirement="B-01")
    """Weight of a term that keeps scores around 0. 0 = off."""


class RewardFunction(ApiModel):
    """Scores a generated answer."""

    type: Literal["exactMatch", "regex", "length", "jsonSchema", "python"] = api_field(resume=IDENTITY, requirement="H-03 X53 B-07")
    """exactMatch: 1 when the answer equals a column. regex: 1 when it matches a pattern. length: 1 within a range of tokens, less the
    farther outside. jsonSchema: 1 when it is JSON that fits a schema, 0.5 when it is other JSON. python: a function of your own."""
    weight: float | None = api_field(default=None, resume=IDENTITY, ge=-100, le=100, requirement="H-03")
    """Factor of the score in the sum. Unset: 1."""
    column: Column | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """exactMatch: column of the dataset with the expected answer. Unset: answer."""
    pattern: Pattern | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """regex: Python regular expression (. matches line ends too). exactMatch: what is compared is the last match's first group."""
    full_match: bool | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """regex: the whole answer must match, not a part of it."""
    min_tokens: int | None = api_field(default=None, resume=IDENTITY, ge=1, le=131072, unit="tokens", requirement="H-03")
    """length: shortest answer of full score."""
    max_tokens: int | None = api_field(default=None, resume=IDENTITY, ge=1, le=131072, unit="tokens", requirement="H-03")
    """length: longest answer of full score."""
    json_schema: JsonSchemaText | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """jsonSchema: the schema, as JSON text."""
    source: ConfigUri | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """python: file with the function, for example configmap://rewards/reward.py."""
    function: FunctionName | None = api_field(default=None, resume=IDENTITY, requirement="H-03")
    """python: its name; called as f(prompts, completions, completion_ids, **columns), it returns one number or None per answer.
    Unset: reward."""


class Grpo(ApiModel):
    """Group relative policy optimisation: the model answers each prompt several times and learns from the scores of its answers."""

    beta: float = api_field(resume=IDENTITY, tier=GENERAL, ge=0, le=1, recommended="0.0001", requirement="H-05 AC-43")
    """How strongly the model is held to the reference. 0 = not at all, and no reference is computed."""
    num_generations: int = api_field(resume=IDENTITY, tier=GENERAL, ge=2, le=10, unit="answers per prompt", requirement="H-08 X52")
    """Answers per prompt. batchSize x gradAccumSteps x ranks, the answers of a step, must be a multiple of it."""
    num_iterations: int = api_field(resume=IDENTITY, tier=ADVANCED, ge=1, le=16, unit="steps per generation", requirement="B-07")
    """Optimizer steps that learn from the same answers before new ones are generated."""
    max_num_seqs: int = api_field(ge=1, le=1024, unit="answers per rank", recommended="1", requirement="H-06 AC-43")
    """Answers a rank generates at once: more is faster and takes more memory."""
    enforce_eager: bool = api_field(tier=ADVANCED, recommended="true", requirement="H-07 X54 AC-43")
    """Generate without a static cache and without compiling."""
    rollout: Literal["hf", "vllm"] = api_field(resume=IDENTITY, tier=GENERAL, requirement="B-07 H-06")
    """What generates the answers: hf = the trained model itself; vllm = vLLM beside it on the same GPU, several times faster, in an image
    that has it (resources.image, made from trainer-image/vllm). A resumed run then goes on with other answers than an uninterrupted one."""
    vllm_memory: float = api_field(tier=ADVANCED, ge=0.05, le=0.9, recommended="0.3", requirement="B-07 H-06")
    """rollout vllm: share of the GPU's memory that vLLM takes for a copy of the weights and its cache; the rest is the training's."""
    temperature: float = api_field(resume=IDENTITY, ge=0.01, le=2, recommended="0.7-1.0", requirement="B-07")
    """Randomness of the answers."""
    top_p: float = api_field(resume=IDENTITY, tier=ADVANCED, ge=0.01, le=1, requirement="B-07")
    """Sample from the likeliest tokens that together have this probability. 1 = all."""
    top_k: int = api_field(resume=IDENTITY, tier=ADVANCED, ge=0, le=10000, unit="tokens", requirement="B-07")
    """Sample from this many likeliest tokens. 0 = all."""
    loss_type: Literal["dapo", "grpo", "bnpo", "dr_grpo"] = api_field(resume=IDENTITY, tier=ADVANCED, requirement="B-07")
    """How token losses are averaged: dapo over all tokens of the step, grpo per answer, bnpo per batch, dr_grpo by the length limit."""
    scale_rewards: Literal["group", "batch", "none"] = api_field(resume=IDENTITY, tier=ADVANCED, requirement="B-07")
    """Scores are divided by their spread among the answers of a prompt, of the batch, or not at all."""
    epsilon: float = api_field(resume=IDENTITY, tier=ADVANCED, ge=0.01, le=1, requirement="B-07")
    """How far the ratio to the generating model may move before it is clipped."""
    reward_functions: list[RewardFunction] | None = api_field(
        default=None, resume=IDENTITY, tier=GENERAL, min_length=1, max_length=8, requirement="H-03 X53"
    )
    """Functions whose weighted scores are added; at least one, or rewardModel."""
    reward_model: ModelUri | None = api_field(default=None, resume=IDENTITY, tier=GENERAL, requirement="H-03 X53")
    """A model whose score is added: directory of a sequence classification model with one output, and its tokenizer; read with
    model.secretRef. Method reward with adapter.type full makes one."""
    reward_model_weight: float = api_field(resume=IDENTITY, ge=-100, le=100, requirement="H-03")
    """Factor of the reward model's score in the sum."""
    reference_model: ModelUri | None = api_field(default=None, resume=IDENTITY, tier=ADVANCED, requirement="H-02")
    """Model to stay close to, read with model.secretRef. Unset: the base model as it was."""
