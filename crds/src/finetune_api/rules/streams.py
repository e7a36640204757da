"""Rules for rows that are tokenised, or even read, while they are trained."""

from __future__ import annotations

from finetune_api import cel
from finetune_api.rules.rule import Rule
from finetune_api.written import OWN, Written

_STREAMING, _LAZY = "dataset.streaming", "dataset.lazyTokenize"
_NOT_STREAMED = f"!{cel.value(_STREAMING)}"
_BEFOREHAND = cel.all_of(_NOT_STREAMED, f"!{cel.value(_LAZY)}")


def _is_later(spec: Written) -> bool:
    return bool(spec[_STREAMING] or spec[_LAZY])


def _packs(spec: Written) -> bool:
    """Whether rows are packed, also where the backend packs unless told otherwise."""
    return bool(spec["dataset.packing"] if spec.has("dataset.packing") else spec["training.backend"] == "optimized")


STREAM_RULES = (
    Rule(
        id="streaming-hub",
        requirement="AC-38 E-14",
        path=_STREAMING,
        message="reads public datasets of the hub: dataset.uri must be an hf:// address, without dataset.secretRef and dataset.additional",
        cel=cel.any_of(
            _NOT_STREAMED,
            cel.all_of(
                cel.unless("dataset.uri", "self.dataset.uri.startsWith('hf://') || self.dataset.uri.startsWith('ref:')"),
                f"!{cel.has('dataset.secretRef')}",
                f"!{cel.has('dataset.additional')}",
            ),
        ),
        holds=lambda spec: (
            not spec[_STREAMING]
            or (
                str(spec["dataset.uri"] or "hf://").startswith(("hf://", "ref:"))
                and not spec.has("dataset.secretRef")
                and not spec.has("dataset.additional")
            )
        ),
    ),
    Rule(
        id="streaming-steps",
        requirement="X30 E-14",
        path="training.maxSteps",
        message="must be above 0 with dataset.streaming, and maxStepsMode override: where a stream ends is not known; for the same reason "
        "checkpoint.strategy and evaluation.strategy cannot be epoch",
        cel=cel.any_of(
            _NOT_STREAMED,
            cel.all_of(
                f"{cel.value('training.maxSteps')} > 0",
                f"{cel.value('training.maxStepsMode')} == 'override'",
                f"{cel.value('checkpoint.strategy')} != 'epoch'",
                f"{cel.value('evaluation.strategy')} != 'epoch'",
            ),
        ),
        holds=lambda spec: (
            not spec[_STREAMING]
            or (
                spec["training.maxSteps"] > 0
                and spec["training.maxStepsMode"] == "override"
                and "epoch" not in (spec["checkpoint.strategy"], spec["evaluation.strategy"])
            )
        ),
        open=("training.maxSteps",),
    ),
    Rule(
        id="streaming-split",
        requirement="X30",
        path=_STREAMING,
        message="cannot split or count rows: leave dataset.evalRatio and dataset.maxSamples at 0 and dataset.trainRatio out, and name "
        "evaluation data in dataset.evalUri",
        cel=cel.any_of(
            _NOT_STREAMED,
            cel.all_of(
                f"{cel.value('dataset.evalRatio')} == 0.0",
                f"{cel.value('dataset.maxSamples')} <= 0",
                f"!{cel.has('dataset.trainRatio')}",
            ),
        ),
        holds=lambda spec: (
            not spec[_STREAMING]
            or (spec["dataset.evalRatio"] == 0 and spec["dataset.maxSamples"] <= 0 and not spec.has("dataset.trainRatio"))
        ),
    ),
    Rule(
        id="later-sft",
        requirement="E-13 E-14",
        path="method",
        message="must be sft with dataset.lazyTokenize or dataset.streaming: other methods need all rows before the first step, "
        "and a TrainingMethod reads its own",
        cel=cel.any_of(_BEFOREHAND, f"{cel.method(OWN)} == 'sft'"),
        holds=lambda spec: not _is_later(spec) or spec.method == "sft",
        open=("method",),
    ),
    Rule(
        id="later-packing",
        requirement="E-13 E-14 E-24",
        path="dataset.packing",
        message="must be false with dataset.lazyTokenize or dataset.streaming (training.backend optimized packs unless it is written): "
        "rows are packed by their lengths, which are not known beforehand",
        cel=cel.any_of(
            _BEFOREHAND,
            cel.all_of(
                f"!{cel.value('dataset.packing')}",
                cel.any_of(f"{cel.value('training.backend')} != 'optimized'", cel.has("dataset.packing")),
            ),
        ),
        holds=lambda spec: not _is_later(spec) or not _packs(spec),
        open=("dataset.packing",),
    ),
)
