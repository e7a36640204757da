"""The presets every installation has, as ClusterFineTunePresets: partial specs with the numbers the requirements give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class ShippedPreset(NamedTuple):
    """A preset of the system."""

    description: str
    """Shown as annotation ``finetune.dev/description``."""
    requirement: str
    spec: Mapping[str, Any]


_PROFILE: Final[Mapping[str, Any]] = {
    "dataset": {"numWorkers": 1, "evalRatio": 0.1},
    "adapter": {"type": "lora", "rank": 16, "alpha": 16, "dropout": 0.1, "targetModules": ["all-linear"]},
    "precision": {"dtype": "bfloat16"},
    "training": {"batchSize": 8, "learningRate": 1e-4, "epochs": 1},
    "checkpoint": {"strategy": "steps", "steps": 100, "keepLast": 2},
    "evaluation": {"strategy": "steps", "steps": 100, "batchSize": 1},
    "logging": {"steps": 5},
    "distributed": {"strategy": "zero3_offload"},
}
"""What the three profiles of source 003 have in common. They evaluate every 100 steps, on a tenth of the rows unless there are others."""

_PAGE: Final[Mapping[str, Any]] = {
    "dataset": {"evalRatio": 0.0, "maxSamples": 0, "reshuffle": False, "numWorkers": 1, "pinMemory": False},
    "precision": {"fp16": True, "bf16": False, "tf32": False},
    "training": {
        "batchSize": 2,
        "gradAccumSteps": 4,
        "maxSeqLength": 512,
        "learningRate": 2e-4,
        "optimizer": "adamw_torch",
        "lrScheduler": "cosine",
        "epochs": 2,
        "maxSteps": -1,
        "weightDecay": 0.01,
        "warmupRatio": 0.1,
        "warmupSteps": 0,
        "maxGradNorm": 1.0,
        "seed": 42,
        "gradientCheckpointing": True,
    },
    "checkpoint": {"strategy": "steps", "steps": 100, "intervalMinutes": 30, "keepLastRemote": 100},
    "evaluation": {"strategy": "no", "steps": 100},
    "earlyStopping": {"patience": 0, "threshold": 0.005},
    "logging": {"level": "info", "steps": 10},
}
"""Every value of source 001 but those of the adapter."""

SHIPPED: Final[Mapping[str, ShippedPreset]] = {
    "sft": ShippedPreset(
        description="Supervised fine-tuning with LoRA: every value written down, FP16 on GPUs.",
        requirement="AC-21 K-01",
        spec={
            "method": "sft",
            "adapter": {"type": "lora", "rank": 16, "alpha": 16, "dropout": 0.0, "targetModules": ["q_proj", "v_proj"]},
            **_PAGE,
        },
    ),
    "pretrain": ShippedPreset(
        description="Continued pre-training on plain text: all weights, rows packed; every value written down, FP16 on GPUs.",
        requirement="AC-22 B-04 K-01 X05",
        spec={
            **_PAGE,
            "method": "pretrain",
            "adapter": {"type": "full"},
            "dataset": {**_PAGE["dataset"], "packing": True},
            "training": {**_PAGE["training"], "learningRate": 1e-4},
        },
    ),
    "profile-003": ShippedPreset(
        description="Supervised fine-tuning with LoRA on all linear layers in bfloat16, by DeepSpeed ZeRO-3 with main memory; evaluated "
        "every 100 steps.",
        requirement="X01 X17 X18 X23 X25 X27 M-02",
        spec={**_PROFILE, "method": "sft"},
    ),
    "profile-003-dpo": ShippedPreset(
        description="Preferences with LoRA on all linear layers.",
        requirement="H-04 X50",
        spec={**_PROFILE, "method": "dpo", "dpo": {"beta": 0.3}},
    ),
    "profile-003-grpo": ShippedPreset(
        description="Group relative policy optimisation with LoRA on all linear layers; the job names its reward functions.",
        requirement="H-05 H-06 H-07 X54",
        spec={**_PROFILE, "method": "grpo", "grpo": {"beta": 0.0001, "maxNumSeqs": 1, "enforceEager": True}},
    ),
    "lora-chat": ShippedPreset(
        description="Chat-style LoRA of a 7B model on 1000 to 10000 rows; sequences as long as the model's context, at most 8192 tokens.",
        requirement="AC-61 K-12 F-34",
        spec={
            "method": "sft",
            "adapter": {"type": "lora", "rank": 16, "alpha": 32, "targetModules": ["q_proj", "v_proj"]},
            "training": {"batchSize": 4, "gradAccumSteps": 1, "maxSeqLength": 0, "learningRate": 2e-4, "epochs": 3},
        },
    ),
    "fastest": ShippedPreset(
        description="For large GPUs: big batches, no accumulation, a high learning rate; at most 1000 steps.",
        requirement="K-08 AC-62 X07",
        spec={"training": {"learningRate": 2e-4, "batchSize": 8, "gradAccumSteps": 1, "maxSteps": 1000, "maxStepsMode": "cap"}},
    ),
    "throughput": ShippedPreset(
        description="Most tokens per second for sft and pretrain on GPUs from Ampere on: optimized backend, packed sequences of 4096 "
        "tokens in bfloat16, LoRA without dropout on all linear layers.",
        requirement="B-12 B-13 E-24",
        spec={
            "dataset": {"packing": True, "numWorkers": 2},
            "adapter": {"rank": 16, "alpha": 32, "dropout": 0.0, "targetModules": ["all-linear"]},
            "precision": {"dtype": "bfloat16", "bf16": True},
            "training": {"backend": "optimized", "batchSize": 1, "maxSeqLength": 4096, "lrScheduler": "cosine", "warmupRatio": 0.03},
        },
    ),
    "cheapest": ShippedPreset(
        description="For small GPUs: little memory per step, the same rows per optimizer step as fastest; at most 500 steps.",
        requirement="K-09 AC-62 X07",
        spec={"training": {"learningRate": 1e-4, "batchSize": 2, "gradAccumSteps": 4, "maxSteps": 500, "maxStepsMode": "cap"}},
    ),
    "auto": ShippedPreset(
        description="For a first run on any GPU: batch, accumulation, steps and learning rate by the memory of resources.gpuType, epochs "
        "and evaluation split by the rows of the Dataset.",
        requirement="K-11 E-20 F-03 F-04 X07",
        spec={"training": {"maxStepsMode": "cap"}},
    ),
    "quick-test": ShippedPreset(
        description="A short run that shows whether model, data and secrets work: at most 100 steps on 100 rows.",
        requirement="K-10 F-23 E-22 X07",
        spec={
            "dataset": {"maxSamples": 100},
            "training": {"batchSize": 1, "maxSteps": 100, "maxStepsMode": "cap"},
        },
    ),
}
