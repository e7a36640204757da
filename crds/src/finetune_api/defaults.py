"""The one table of defaults. Nothing here is ever written into a job's ``spec``; ``status.resolved`` shows what was used and why.

Precedence: job > preset > backend > method > adapter type > base table. Values a rule derives from others
(``adapter.alpha`` = rank) stay unset here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BASE: Final[Mapping[str, Any]] = {
    "method": "sft",
    "model.trustRemoteCode": False,
    "dataset.split": "train",
    "dataset.weight": 1.0,
    "dataset.format": "auto",
    "dataset.onError": "fail",
    "dataset.assistantOnlyLoss": False,
    "dataset.evalRatio": 0.0,
    "dataset.maxSamples": 0,
    "dataset.promptMaxLength": 2048,
    "dataset.reshuffle": False,
    "dataset.packing": False,
    "dataset.numWorkers": 1,
    "dataset.pinMemory": False,
    "cache": {},
    "adapter.type": "lora",
    "adapter.rank": 16,
    "adapter.dropout": 0.0,
    "adapter.targetModules": ["q_proj", "v_proj"],
    "adapter.allowCustomModules": False,
    "quantization.mode": "auto",
    "precision.dtype": "auto",
    "precision.fp16": False,
    "precision.bf16": False,
    "precision.tf32": False,
    "training.batchSize": 2,
    "training.gradAccumSteps": 4,
    "training.maxSeqLength": 512,
    "training.longContext": False,
    "training.learningRate": 2e-4,
    "training.optimizer": "adamw_torch",
    "training.lrScheduler": "cosine",
    "training.lrCosineCycles": 2,
    "training.epochs": 2,
    "training.maxSteps": -1,
    "training.maxStepsMode": "override",
    "training.weightDecay": 0.01,
    "training.warmupRatio": 0.1,
    "training.warmupSteps": 0,
    "training.maxGradNorm": 1.0,
    "training.seed": 42,
    "training.gradientCheckpointing": True,
    "training.backend": "standard",
    "dpo.beta": 0.3,
    "dpo.lossType": "sigmoid",
    "dpo.labelSmoothing": 0.0,
    "reward.centerRewardsCoefficient": 0.0,
    "kto.beta": 0.1,
    "kto.desirableWeight": 1.0,
    "kto.undesirableWeight": 1.0,
    "grpo.beta": 0.0001,
    "grpo.numGenerations": 4,
    "grpo.numIterations": 1,
    "grpo.maxNumSeqs": 1,
    "grpo.enforceEager": False,
    "grpo.temperature": 1.0,
    "grpo.topP": 1.0,
    "grpo.topK": 0,
    "grpo.lossType": "dapo",
    "grpo.scaleRewards": "group",
    "grpo.epsilon": 0.2,
    "grpo.rewardModelWeight": 1.0,
    "resources.device": "gpu",
    "resources.gpusPerReplica": 1,
    "distributed.strategy": "auto",
    "distributed.timeoutSeconds": 600,
    "checkpoint.strategy": "steps",
    "checkpoint.steps": 100,
    "checkpoint.intervalMinutes": 30,
    "checkpoint.keepLast": 2,
    "checkpoint.keepLastRemote": 100,
    "checkpoint.autoResume": True,
    "evaluation.strategy": "no",
    "evaluation.steps": 100,
    "evaluation.batchSize": 1,
    "evaluation.final": True,
    "earlyStopping.patience": 0,
    "earlyStopping.threshold": 0.005,
    "logging.level": "info",
    "logging.steps": 10,
    "logging.trackers": [],
    "output.merge": False,
    "output.export.gguf.enabled": False,
    "output.export.gguf.quant": ["Q8_0"],
    "output.export.samples": 5,
    "output.export.timeoutSeconds": 21600,
    "output.push.enabled": False,
    "output.push.private": True,
    "output.modelCard": {},
    "output.retain": "Keep",
    "output.cleanupTimeoutSeconds": 600,
    "output.retentionDays": 30,
    "secrets": {},
    "limits": {},
}

METHOD: Final[Mapping[str, Mapping[str, Any]]] = {
    "sft": {},
    "pretrain": {"adapter.type": "full", "training.learningRate": 1e-4, "dataset.packing": True},
    "dpo": {},
    "reward": {},
    "kto": {},
    "grpo": {},
}
"""What a method sets other than the base table (X05, X31, B-04). The blocks named like a method count for that method alone."""

ADAPTER: Final[Mapping[str, Mapping[str, Any]]] = {"lora": {}, "full": {"training.learningRate": 2e-5}}
"""What an adapter type sets other than the base table (X05)."""

BACKEND: Final[Mapping[str, Mapping[str, Any]]] = {"standard": {}, "optimized": {"dataset.packing": True}}
"""What a backend sets other than the base table."""

SCHEMA: Final[Mapping[str, Any]] = {
    "replicas": 1,
    "suspend": False,
    "desiredState": "Running",
    "pausePolicy.timeoutSeconds": 600,
    "pausePolicy.ifUnsaved": "Wait",
    "pausePolicy.graceSeconds": 120,
    "retry.limit": 3,
    "retry.backoffSeconds": 10,
    "retry.onDivergence": "fail",
    "retry.onStall": "restart",
    "retry.stallSeconds": 900,
}
"""Fields no preset may set: these defaults are in the schema, the API server writes them."""
