"""Rules for how is learnt: adapter, precision, hyperparameters, evaluation, early stopping."""

from __future__ import annotations

from finetune_api import arguments, cel
from finetune_api.models.spec import LORA_MODULES, TARGET_SHORTHANDS
from finetune_api.resolve import ADAPTER_SHAPE, ATTACHED, LORA_FIELDS
from finetune_api.rules.rule import Rule

_TARGETS = "adapter.targetModules"
_STRATEGY = "evaluation.strategy"

ADAPTER_RULES = (
    Rule(
        id="attach-shape",
        requirement="R-12",
        path=ATTACHED,
        message=f"the adapter brings its shape with it: leave out {', '.join(ADAPTER_SHAPE)}",
        cel=cel.any_of(f"!{cel.has(ATTACHED)}", cel.negate(cel.any_of(*(cel.has(path) for path in ADAPTER_SHAPE)))),
        holds=lambda spec: not spec.has(ATTACHED) or not any(spec.has(path) for path in ADAPTER_SHAPE),
    ),
    Rule(
        id="adapter-full",
        requirement="AC-22 X31",
        path="adapter.type",
        message=f"full trains all weights: leave out {', '.join(LORA_FIELDS)}; or set adapter.type to lora",
        cel=cel.any_of(f"{cel.value('adapter.type')} != 'full'", cel.negate(cel.any_of(*(cel.has(path) for path in LORA_FIELDS)))),
        holds=lambda spec: spec["adapter.type"] != "full" or not any(spec.has(path) for path in LORA_FIELDS),
    ),
    Rule(
        id="target-modules-known",
        requirement="AC-31 G-08 G-09",
        path=_TARGETS,
        message=f"names come from {', '.join(LORA_MODULES)}, or one of {', '.join(TARGET_SHORTHANDS)} alone; "
        "for others set adapter.allowCustomModules to true",
        cel=cel.any_of(
            cel.value("adapter.allowCustomModules"),
            cel.unless(_TARGETS, f"self.{_TARGETS}.all(name, name in {cel.literal(LORA_MODULES + TARGET_SHORTHANDS)})"),
        ),
        holds=lambda spec: (
            spec["adapter.allowCustomModules"] or all(name in LORA_MODULES + TARGET_SHORTHANDS for name in spec["adapter.targetModules"])
        ),
        open=("adapter.allowCustomModules",),
    ),
    Rule(
        id="target-shorthand-alone",
        requirement="AC-31 G-09",
        path=_TARGETS,
        message=f"{', '.join(TARGET_SHORTHANDS)} stand for whole sets: write one of them alone, or a list of names",
        cel=cel.unless(_TARGETS, f"self.{_TARGETS}.size() == 1 || !self.{_TARGETS}.exists(name, name in {cel.literal(TARGET_SHORTHANDS)})"),
        holds=lambda spec: len(spec[_TARGETS]) == 1 or not any(name in TARGET_SHORTHANDS for name in spec[_TARGETS]),
    ),
)

QUANTIZATION_RULES = (
    Rule(
        id="quantization-full",
        requirement="B-10 X31",
        path="quantization.mode",
        message="4bit is for adapters: weights in 4 bits cannot be trained; set adapter.type to lora, or write none or auto",
        cel=cel.any_of(f"{cel.value('quantization.mode')} != '4bit'", f"{cel.value('adapter.type')} != 'full'"),
        holds=lambda spec: spec["quantization.mode"] != "4bit" or spec["adapter.type"] != "full",
    ),
    Rule(
        id="quantization-fsdp",
        requirement="B-10 M-01",
        path="quantization.mode",
        message="fsdp cannot split weights in 4 bits; set distributed.strategy to ddp or zero2, or write none",
        cel=cel.any_of(f"{cel.value('quantization.mode')} != '4bit'", f"{cel.value('distributed.strategy')} != 'fsdp'"),
        holds=lambda spec: spec["quantization.mode"] != "4bit" or spec["distributed.strategy"] != "fsdp",
    ),
)

PRECISION_RULES = (
    Rule(
        id="precision-exclusive",
        requirement="AC-23 I-03",
        path="precision.bf16",
        message="fp16 and bf16 exclude each other; set precision.fp16 or precision.bf16 to false",
        cel=cel.negate(cel.all_of(cel.value("precision.fp16"), cel.value("precision.bf16"))),
        holds=lambda spec: not (spec["precision.fp16"] and spec["precision.bf16"]),
    ),
    Rule(
        id="precision-dtype",
        requirement="X27 I-01",
        path="precision.dtype",
        message="contradicts precision.fp16 or precision.bf16; leave dtype out, or set the flag that does not match it to false",
        cel=cel.all_of(
            cel.any_of(f"!{cel.value('precision.fp16')}", f"{cel.value('precision.dtype')} in ['auto', 'float16']"),
            cel.any_of(f"!{cel.value('precision.bf16')}", f"{cel.value('precision.dtype')} in ['auto', 'bfloat16']"),
        ),
        holds=lambda spec: (
            (not spec["precision.fp16"] or spec["precision.dtype"] in ("auto", "float16"))
            and (not spec["precision.bf16"] or spec["precision.dtype"] in ("auto", "bfloat16"))
        ),
    ),
)

TRAINING_RULES = (
    Rule(
        id="sequence-length-range",
        requirement="AC-16 F-07",
        path="training.maxSeqLength",
        message="must be 0 (the model's context) or at least 128",
        cel=cel.any_of(f"{cel.value('training.maxSeqLength')} == 0", f"{cel.value('training.maxSeqLength')} >= 128"),
        holds=lambda spec: spec["training.maxSeqLength"] == 0 or spec["training.maxSeqLength"] >= 128,
    ),
    Rule(
        id="sequence-length-long",
        requirement="AC-16 X09",
        path="training.maxSeqLength",
        message="above 8192 needs training.longContext: true",
        cel=cel.any_of(f"{cel.value('training.maxSeqLength')} <= 8192", cel.value("training.longContext")),
        holds=lambda spec: spec["training.maxSeqLength"] <= 8192 or spec["training.longContext"],
        open=("training.longContext",),
    ),
    Rule(
        id="max-steps-zero",
        requirement="F-21",
        path="training.maxSteps",
        message="0 would train nothing; write -1 to let epochs decide",
        cel=f"{cel.value('training.maxSteps')} != 0",
        holds=lambda spec: spec["training.maxSteps"] != 0,
    ),
    Rule(
        id="extra-args-accepted",
        requirement="F-32",
        path=arguments.PATH,
        message=f"accepts {', '.join(arguments.ACCEPTED)}; everything else has a field of its own or would break a run "
        "(kubectl finetune validate says which field)",
        cel=cel.unless(arguments.PATH, f"self.{arguments.PATH}.all(name, name in {cel.literal(tuple(arguments.ACCEPTED))})"),
        holds=lambda spec: all(name in arguments.ACCEPTED for name in spec[arguments.PATH] or ()),
        explain=lambda spec: arguments.explain(spec[arguments.PATH]),
    ),
)

EVALUATION_RULES = (
    Rule(
        id="evaluation-data",
        requirement="AC-11 S-02",
        path=_STRATEGY,
        message="evaluation needs data: set dataset.evalUri, or dataset.evalRatio above 0; or write strategy no",
        cel=cel.any_of(
            f"{cel.value(_STRATEGY)} == 'no'",
            cel.has("dataset.evalUri"),
            f"{cel.value('dataset.evalRatio')} > 0.0",
            "(has(self.dataset) && has(self.dataset.uri) && self.dataset.uri.startsWith('ref:'))",  # the Dataset may have some
        ),
        holds=lambda spec: (
            spec[_STRATEGY] == "no"
            or spec.has("dataset.evalUri")
            or spec["dataset.evalRatio"] > 0
            or str(spec["dataset.uri"]).startswith("ref:")
        ),
        open=("dataset.evalUri", "dataset.evalRatio"),
    ),
    Rule(
        id="early-stopping-evaluation",
        requirement="AC-24 S-07",
        path="earlyStopping.patience",
        message="above 0 needs evaluations: set evaluation.strategy to steps or epoch",
        cel=cel.any_of(f"{cel.value('earlyStopping.patience')} == 0", f"{cel.value(_STRATEGY)} != 'no'"),
        holds=lambda spec: spec["earlyStopping.patience"] == 0 or spec[_STRATEGY] != "no",
        open=(_STRATEGY,),
    ),
    Rule(
        id="output-best",
        requirement="X59 S-06",
        path="output.use",
        message="best needs evaluations: set evaluation.strategy to steps or epoch, or write last",
        cel=cel.any_of(f"{cel.value('output.use', 'last')} != 'best'", f"{cel.value(_STRATEGY)} != 'no'"),
        holds=lambda spec: spec["output.use"] != "best" or spec[_STRATEGY] != "no",
        open=(_STRATEGY,),
    ),
)

LEARNING_RULES = ADAPTER_RULES + QUANTIZATION_RULES + PRECISION_RULES + TRAINING_RULES + EVALUATION_RULES
