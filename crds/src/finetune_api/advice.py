"""Advice on a resolved job: values outside what is recommended, and settings that have no effect. It never refuses anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from finetune_api.describe import plain
from finetune_api.exports import exports
from finetune_api.quantities import number_of
from finetune_api.resolve import ADAPTER_SHAPE, ATTACHED, Resolution, flatten

OUTSIDE_RECOMMENDED = "OutsideRecommended"
"""Condition: values the requirements advise against."""
SETTING_IGNORED = "SettingIgnored"
"""Condition: the job writes something that has no effect beside what else it says."""
ATTACH_NOT_RECOMMENDED = "AttachLoraNotRecommended"
"""Condition: the training goes on from an existing adapter (R-12)."""
PRESET_ASSUMES = "AutoPresetAssumes"
"""Condition: the preset auto did not know what it goes by (K-11)."""
MAX_MESSAGE = 1024
"""Characters of a condition's message."""

LEARNING_RATES: Mapping[str, tuple[float, float]] = {"lora": (1e-4, 5e-4), "full": (1e-5, 5e-5)}
"""Recommended band by adapter type (F-12)."""
PRETRAIN_RATES = (1e-4, 1e-3)
"""Recommended band of method pretrain (F-12)."""

Leaves = Mapping[str, Any]
"""A resolved job by dotted path."""


class Advice(NamedTuple):
    """One piece of advice."""

    requirement: str
    path: str
    text: str
    """Read after path and value."""
    applies: Callable[[Leaves], bool]


def _outside(low: float, path: str, high: float) -> Callable[[Leaves], bool]:
    return lambda job: path in job and not low <= job[path] <= high


def _lora(condition: Callable[[Leaves], bool]) -> Callable[[Leaves], bool]:
    return lambda job: job["adapter.type"] == "lora" and condition(job)


def _learning_rate_is_unusual(job: Leaves) -> bool:
    if job["method"] not in ("sft", "pretrain"):
        return False  # the requirements give no band; what is right depends on beta and on the rewards
    low, high = PRETRAIN_RATES if job["method"] == "pretrain" else LEARNING_RATES[job["adapter.type"]]
    return bool(not low <= job["training.learningRate"] <= high)


def _warms_up_by_ratio(job: Leaves) -> bool:
    return bool(job["training.warmupSteps"] == 0 and job["training.lrScheduler"] != "constant")


def _loaders_exceed_cpus(job: Leaves) -> bool:
    return "resources.cpu" in job and job["dataset.numWorkers"] > number_of(job["resources.cpu"])


def _on_cpu(job: Leaves) -> bool:
    return bool(job["resources.device"] == "cpu")


def _starts(address: str, *schemes: str) -> bool:
    return address.startswith(tuple(f"{scheme}://" for scheme in schemes))


def _models(job: Leaves) -> list[str]:
    """Addresses that are read with model.secretRef."""
    paths = ("model.uri", "model.tokenizer.uri", "dpo.referenceModel", "kto.referenceModel", "grpo.referenceModel", "grpo.rewardModel")
    return [job[path] for path in paths if path in job]


def _data(job: Leaves) -> list[str]:
    """Addresses of rows to train and evaluate on."""
    return [
        job["dataset.uri"],
        *(part["uri"] for part in job.get("dataset.additional", ())),
        job.get("dataset.evalUri", job["dataset.uri"]),
    ]


def _is_file(address: str) -> bool:
    """Whether an address can only be that of one file."""
    return _starts(address, "configmap") or address.endswith(_ROWS)


_ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt", ".text", ".zip")


def _exports_nothing(job: Leaves) -> bool:
    return not exports(job)


RECOMMENDATIONS = (
    Advice("X01", "training.batchSize", "is above 15; it needs much GPU memory", _outside(1, "training.batchSize", 15)),
    Advice("F-31", "evaluation.batchSize", "is above 15; it needs much GPU memory", _outside(1, "evaluation.batchSize", 15)),
    Advice("X06", "training.epochs", "is above 50; the model will learn the rows by heart", _outside(1, "training.epochs", 50)),
    Advice(
        "AC-19 F-12",
        "training.learningRate",
        "is outside the usual band (LoRA 0.0001 to 0.0005, full 0.00001 to 0.00005, pretrain 0.0001 to 0.001); higher diverges, "
        "lower learns slowly",
        _learning_rate_is_unusual,
    ),
    Advice(
        "X13",
        "training.warmupRatio",
        "is outside 0.01 to 0.2",
        lambda job: _warms_up_by_ratio(job) and not 0.01 <= job["training.warmupRatio"] <= 0.2,
    ),
    Advice("X13", "training.warmupSteps", "is above 5000", _outside(0, "training.warmupSteps", 5000)),
    Advice("X14", "training.maxGradNorm", "is outside 0.5 to 5", _outside(0.5, "training.maxGradNorm", 5)),
    Advice("X09", "training.maxSeqLength", "is above 8192; memory grows with it", _outside(0, "training.maxSeqLength", 8192)),
    Advice("X15", "adapter.rank", "is above 64; more parameters seldom help", _lora(_outside(1, "adapter.rank", 64))),
    Advice("X17", "adapter.dropout", "is above 0.1", _lora(_outside(0, "adapter.dropout", 0.1))),
    Advice(
        "X20",
        "checkpoint.steps",
        "is above 100; more work is lost when a node dies",
        lambda job: job["checkpoint.strategy"] == "steps" and job["checkpoint.steps"] > 100,
    ),
    Advice(
        "X24",
        "evaluation.steps",
        "is outside 100 to 200",
        lambda job: job["evaluation.strategy"] == "steps" and not 100 <= job["evaluation.steps"] <= 200,
    ),
    Advice("X26", "dataset.numWorkers", "is above 9; each one takes memory", _outside(0, "dataset.numWorkers", 9)),
    Advice("E-26", "dataset.numWorkers", "is more than the CPUs of the pod (resources.cpu)", _loaders_exceed_cpus),
    Advice("X28 E-17", "dataset.trainRatio", "is 0.8 or less of the rows", lambda job: job.get("dataset.trainRatio", 1) <= 0.8),
    Advice("X28 AC-41", "dataset.evalRatio", "leaves 80 % or less of the rows for training", lambda job: job["dataset.evalRatio"] >= 0.2),
    Advice(
        "H-07 X54 AC-43",
        "grpo.enforceEager",
        "compiles generation and keeps a static cache; true is recommended",
        lambda job: job.get("grpo.enforceEager") is False,
    ),
    Advice("H-06", "grpo.maxNumSeqs", "is above 1; memory for generated answers grows with it", _outside(1, "grpo.maxNumSeqs", 1)),
    Advice("F-09", "dataset.promptMaxLength", "is outside 256 to 2048", _outside(256, "dataset.promptMaxLength", 2048)),
    Advice("F-10", "dataset.contentMaxLength", "is outside 256 to 2048", _outside(256, "dataset.contentMaxLength", 2048)),
)

ATTACHING = (
    Advice(
        "R-12",
        ATTACHED,
        "is attached: a new optimizer and schedule act on trained weights, which may be unstable. Right for going on from a LoRA and for "
        "training in several stages; not recommended where checkpoint.resumeFrom can go on from a checkpoint, which is exact",
        lambda job: ATTACHED in job,
    ),
)
"""Said under a name of its own, whoever sets it."""

WITHOUT_EFFECT = (
    Advice(
        "F-17",
        "training.lrCosineCycles",
        "counts with lrScheduler cosine_with_restarts only",
        lambda job: job["training.lrScheduler"] != "cosine_with_restarts",
    ),
    Advice(
        "F-22",
        "training.epochs",
        "does not count: training.maxSteps decides",
        lambda job: job["training.maxSteps"] > 0 and job["training.maxStepsMode"] == "override",
    ),
    Advice("F-27", "training.warmupRatio", "does not count: training.warmupSteps decides", lambda job: job["training.warmupSteps"] > 0),
    Advice(
        "F-26", "training.warmupSteps", "does not count with lrScheduler constant", lambda job: job["training.lrScheduler"] == "constant"
    ),
    Advice("I-02", "precision.fp16", "is for GPUs; on CPU float32 is used", lambda job: job["precision.fp16"] and _on_cpu(job)),
    Advice("I-04", "precision.tf32", "is for GPUs", lambda job: job["precision.tf32"] and _on_cpu(job)),
    Advice("L-16", "resources.gpusPerReplica", "does not count with resources.device cpu", _on_cpu),
    Advice("E-27", "dataset.pinMemory", "is for GPUs", lambda job: job["dataset.pinMemory"] and _on_cpu(job)),
    *(
        Advice("G-10", path, "does not count: adapter.peftConfig replaces it", lambda job: "adapter.peftConfig" in job)
        for path in ADAPTER_SHAPE
        if path not in ("adapter.peftConfig", "adapter.allowCustomModules")
    ),
    *(Advice("R-12", path, f"does not count: {ATTACHED} brings its own", lambda job: ATTACHED in job) for path in ADAPTER_SHAPE),
    Advice(
        "X21", "checkpoint.intervalMinutes", "does not count with checkpoint.strategy no", lambda job: job["checkpoint.strategy"] == "no"
    ),
    Advice("R-02", "checkpoint.steps", "counts with checkpoint.strategy steps only", lambda job: job["checkpoint.strategy"] != "steps"),
    Advice("S-03", "evaluation.steps", "counts with evaluation.strategy steps only", lambda job: job["evaluation.strategy"] != "steps"),
    Advice(
        "S-08", "earlyStopping.threshold", "does not count: earlyStopping.patience is 0", lambda job: job["earlyStopping.patience"] == 0
    ),
    Advice(
        "W-01",
        "output.merge",
        "adds nothing: adapter.type full leaves a whole model anyway",
        lambda job: job["output.merge"] and job["adapter.type"] == "full",
    ),
    Advice(
        "W-04", "output.export.gguf.quant", "counts with output.export.gguf.enabled only", lambda job: not job["output.export.gguf.enabled"]
    ),
    *(
        Advice("W-03", path, "counts with output.push.enabled only", lambda job: not job["output.push.enabled"])
        for path in ("output.push.repoId", "output.push.private", "output.push.secretRef.name")
    ),
    *(
        Advice("W-01", f"output.export.{name}", "counts only when something is exported (merge, gguf or push)", _exports_nothing)
        for name in ("samples", "cpu", "memory", "timeoutSeconds")
    ),
    Advice(
        "B-06",
        "dpo.labelSmoothing",
        "counts with dpo.lossType sigmoid and robust only",
        lambda job: job.get("dpo.lossType") in ("hinge", "ipo"),
    ),
    Advice(
        "H-03",
        "grpo.rewardModelWeight",
        "does not count: grpo.rewardModel is not set",
        lambda job: job.get("grpo.rewardModelWeight", 1) != 1 and "grpo.rewardModel" not in job,
    ),
    Advice(
        "B-07",
        "grpo.vllmMemory",
        "does not count: grpo.rollout is hf",
        lambda job: job.get("grpo.vllmMemory", 0.3) != 0.3 and job.get("grpo.rollout") != "vllm",
    ),
    Advice(
        "E-02",
        "dataset.assistantOnlyLoss",
        "counts with method sft alone; the others learn whole texts or whole answers",
        lambda job: job["dataset.assistantOnlyLoss"] and job.get("method") != "sft",
    ),
    *(
        Advice(
            "E-12 F-10",
            path,
            "does not count: texts without a prompt have no limit but training.maxSeqLength (format text, method pretrain)",
            lambda job: job.get("method") == "pretrain" or job["dataset.format"] == "text",
        )
        for path in ("dataset.promptMaxLength", "dataset.contentMaxLength")
    ),
    Advice(
        "X-02",
        "model.secretRef.name",
        "does not count: hf:// reads with secrets.huggingface, pvc:// without credentials",
        lambda job: all(_starts(address, "hf", "pvc") for address in _models(job)),
    ),
    Advice(
        "D-08",
        "dataset.config",
        "does not count: only datasets of the hub (hf://) have configurations",
        lambda job: not any(_starts(address, "hf") for address in _data(job)),
    ),
    Advice(
        "D-16",
        "dataset.split",
        "does not count: a single file has no splits",
        lambda job: all(_is_file(address) and not _starts(address, "hf") for address in _data(job)),
    ),
    Advice("L-08", "cache.sizeLimit", "does not count: cache.claimName is set", lambda job: "cache.claimName" in job),
)


def warnings_for(resolution: Resolution) -> dict[str, str]:
    """Condition type -> message, for each kind of advice there is something of.

    A setting without effect is told to who wrote it, the job; FP16 of a preset or BaseModel counts as well, for it would decide the
    numbers. What a TrainingMethod's program makes of a value is not known here: its jobs get no such advice.
    """
    assumed = {PRESET_ASSUMES: _shorten(" ".join(resolution.notes))} if resolution.notes else {}
    if resolution.spec.method is None:
        return assumed
    job = flatten(resolution.spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    told = {OUTSIDE_RECOMMENDED: RECOMMENDATIONS, SETTING_IGNORED: WITHOUT_EFFECT, ATTACH_NOT_RECOMMENDED: ATTACHING}
    messages = assumed
    for condition, table in told.items():
        sentences = [
            f"{advice.path} {plain(job[advice.path])} {advice.text}."
            for advice in table
            if advice.applies(job) and (condition != SETTING_IGNORED or _is_told(advice.path, resolution))
        ]
        if sentences:
            messages[condition] = _shorten(" ".join(sentences))
    return messages


def _is_told(path: str, resolution: Resolution) -> bool:
    source = resolution.sources.get(path)
    return source == "job" or (source in ("preset", "model") and path == "precision.fp16")


def _shorten(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."
