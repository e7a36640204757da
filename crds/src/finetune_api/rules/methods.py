"""Rules for training methods: which blocks, rows and adapters belong to which, and what scores an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from finetune_api import cel
from finetune_api.models.methods import METHOD_BLOCKS
from finetune_api.resolve import LORA_FIELDS
from finetune_api.rules.rule import Rule
from finetune_api.rules.sources import ADDRESS_FORMS, MODEL_SCHEMES, PARENT_SEGMENT, address_rule
from finetune_api.rules.vision import VLM_ZIP
from finetune_api.written import OWN, Written

_METHOD, _TARGETS, _FUNCTIONS = "method", "adapter.targetModules", "grpo.rewardFunctions"
_PROCESSES, _GPUS, _DEVICE = "resources.processesPerReplica", "resources.gpusPerReplica", "resources.device"
_BATCH, _ACCUMULATION = "training.batchSize", "training.gradAccumSteps"
TOKEN_METHODS = ("sft", "pretrain")
"""Methods that learn sequences of tokens; all others compare or score answers."""
_COMPARED = ("preference", "openai-dpo")
_ANSWERED = ("messages", "sharegpt", "alpaca", "prompt-completion")
OWN_FORMATS: Mapping[str, tuple[str, ...]] = {
    "sft": ("auto", *_ANSWERED, "text", VLM_ZIP),
    "pretrain": ("auto", "text", *_ANSWERED),
    "dpo": ("auto", *_COMPARED, *_ANSWERED),
    "reward": ("auto", *_COMPARED, *_ANSWERED),
    "kto": ("auto", *_ANSWERED),
    "grpo": ("auto", *_ANSWERED),
}
"""Values of dataset.format a method can learn from."""


def _is(*methods: str) -> str:
    """Whether the method is one of these; :data:`OWN` stands for all TrainingMethods."""
    return f"{cel.method(OWN)} in {cel.literal(methods)}"


def _block_rule(block: str) -> Rule:
    return Rule(
        id=f"block-{block}",
        requirement="H-01 AC-44",
        path=block,
        message=f"belongs to method {block}; leave the block {block} out, or write method: {block}",
        cel=cel.any_of(f"!{cel.has(block)}", _is(block)),
        holds=lambda spec: not spec.has(block) or spec.method == block,
        open=(_METHOD,),
    )


def _format_rule(method: str, formats: tuple[str, ...]) -> Rule:
    return Rule(
        id=f"format-{method}",
        requirement="E-04 E-06",
        path="dataset.format",
        message=f"does not fit method {method}; write one of {', '.join(formats)}",
        cel=cel.any_of(f"!({_is(method)})", f"{cel.value('dataset.format')} in {cel.literal(formats)}"),
        holds=lambda spec: spec.method != method or spec["dataset.format"] in formats,
        open=(_METHOD,),
    )


def _writer_rule(path: str) -> Rule:
    """What is made of models that write, not of one that gives a number."""
    return Rule(
        id=f"reward-{path.split('.')[-2]}",
        requirement="B-01 W-01",
        path=path,
        message="is for models that write text; what method reward makes gives a number: leave it out",
        cel=cel.any_of(f"!({_is('reward')})", cel.negate(cel.value(path))),
        holds=lambda spec: spec.method != "reward" or not spec[path],
        open=(_METHOD,),
    )


def _functions(spec: Written) -> Iterable[Mapping[str, Any]]:
    return spec[_FUNCTIONS] or ()


def _function_rule(kind: str, fields: tuple[str, ...], message: str) -> Rule:
    """An entry of one type needs one of some fields."""
    needed = " || ".join(f"has(entry.{name})" for name in fields)
    return Rule(
        id=f"reward-{kind.lower()}",
        requirement="H-03 X53",
        path=_FUNCTIONS,
        message=f"an entry of type {kind} needs {message}",
        cel=cel.unless(_FUNCTIONS, f"self.{_FUNCTIONS}.all(entry, entry.type != '{kind}' || {needed})"),
        holds=lambda spec: all(entry["type"] != kind or any(name in entry for name in fields) for entry in _functions(spec)),
    )


def _source_is_complete(pattern: str) -> Callable[[Written], bool]:
    def holds(spec: Written) -> bool:
        sources = [entry["source"] for entry in _functions(spec) if "source" in entry]
        return all(re.search(pattern, source) and not re.search(PARENT_SEGMENT, source) for source in sources)

    return holds


_SOURCE_SCHEMES = ("s3", "gs", "pvc", "https", "configmap")
_SOURCE_PATTERN = f"^({'|'.join(ADDRESS_FORMS[scheme][0] for scheme in _SOURCE_SCHEMES)})$"
_PER_POD = f"({cel.has(_PROCESSES)} ? {cel.value(_PROCESSES, 1)} : ({cel.value(_DEVICE)} == 'gpu' ? {cel.value(_GPUS)} : 1))"
_RANKS = f"{cel.value('replicas')} * {_PER_POD}"


def _answers_per_step(spec: Written) -> int:
    ranks = spec["replicas"] * (spec[_PROCESSES] or (spec[_GPUS] if spec[_DEVICE] == "gpu" else 1))
    return int(ranks * spec[_BATCH] * spec[_ACCUMULATION])


GRPO_RULES = (
    Rule(
        id="grpo-reward",
        requirement="X53 H-03",
        path="grpo",
        message="method grpo needs something that scores answers: write grpo.rewardFunctions or grpo.rewardModel",
        cel=cel.any_of(f"!({_is('grpo')})", cel.has(_FUNCTIONS), cel.has("grpo.rewardModel")),
        holds=lambda spec: spec.method != "grpo" or spec.has(_FUNCTIONS) or spec.has("grpo.rewardModel"),
        open=(_METHOD, _FUNCTIONS, "grpo.rewardModel"),
    ),
    Rule(
        id="grpo-groups",
        requirement="X52 H-08",
        path="grpo.numGenerations",
        message="must divide the answers of a step, training.batchSize x training.gradAccumSteps x ranks; change one of them",
        cel=cel.any_of(
            f"!({_is('grpo')})",
            f"({cel.value(_BATCH)} * {cel.value(_ACCUMULATION)} * {_RANKS}) % {cel.value('grpo.numGenerations')} == 0",
        ),
        holds=lambda spec: spec.method != "grpo" or _answers_per_step(spec) % spec["grpo.numGenerations"] == 0,
        open=(_METHOD, _BATCH, _ACCUMULATION, _PROCESSES, _GPUS, _DEVICE, "grpo.numGenerations"),
        job_only=True,
    ),
    Rule(
        id="grpo-rollout",
        requirement="B-07",
        path="grpo.rollout",
        message="vllm needs a GPU; set resources.device to gpu, or write hf",
        cel=cel.any_of(f"{cel.value('grpo.rollout')} != 'vllm'", f"{cel.value(_DEVICE)} == 'gpu'"),
        holds=lambda spec: spec["grpo.rollout"] != "vllm" or spec[_DEVICE] == "gpu",
        open=(_DEVICE,),
    ),
    _function_rule("regex", ("pattern",), "pattern"),
    _function_rule("length", ("minTokens", "maxTokens"), "minTokens, maxTokens or both"),
    _function_rule("jsonSchema", ("jsonSchema",), "jsonSchema, a schema as JSON text"),
    _function_rule("python", ("source",), "source, a Python file such as configmap://rewards/reward.py"),
    Rule(
        id="reward-source",
        requirement="AC-36",
        path=_FUNCTIONS,
        message="has a source that is no complete address; write one of "
        f"{', '.join(ADDRESS_FORMS[scheme][1] for scheme in _SOURCE_SCHEMES)}, without ..",
        cel=cel.unless(
            _FUNCTIONS,
            f"self.{_FUNCTIONS}.all(entry, !has(entry.source) || (entry.source.matches('{_SOURCE_PATTERN}') && "
            f"!entry.source.matches('{PARENT_SEGMENT}')))",
        ),
        holds=_source_is_complete(_SOURCE_PATTERN),
    ),
    address_rule("grpo.rewardModel", MODEL_SCHEMES),
    address_rule("grpo.referenceModel", MODEL_SCHEMES),
)

METHOD_RULES = (
    *(_block_rule(block) for block in METHOD_BLOCKS),
    *(_format_rule(method, formats) for method, formats in OWN_FORMATS.items()),
    Rule(
        id="pretrain-lora",
        requirement="AC-22 X31 G-01",
        path=_METHOD,
        message="pretrain trains all weights unless adapter.type says lora: "
        f"leave out {', '.join(LORA_FIELDS)}, or write adapter.type: lora",
        cel=cel.any_of(f"!({_is('pretrain')})", cel.has("adapter.type"), cel.negate(cel.any_of(*(cel.has(path) for path in LORA_FIELDS)))),
        holds=lambda spec: spec.method != "pretrain" or spec.has("adapter.type") or not any(spec.has(path) for path in LORA_FIELDS),
        open=(_METHOD, "adapter.type"),
    ),
    Rule(
        id="packing-method",
        requirement="E-24",
        path="dataset.packing",
        message="is for methods sft and pretrain; other methods compare whole answers: leave it out or write false",
        cel=cel.any_of(f"!{cel.value('dataset.packing')}", _is(*TOKEN_METHODS, OWN)),
        holds=lambda spec: not spec["dataset.packing"] or spec.method in (*TOKEN_METHODS, OWN),
        open=(_METHOD,),
    ),
    Rule(
        id="head-method",
        requirement="G-08",
        path=_TARGETS,
        message="must not name lm_head with methods other than sft and pretrain, which read its weights without the adapter",
        cel=cel.any_of(_is(*TOKEN_METHODS, OWN), cel.unless(_TARGETS, f"!self.{_TARGETS}.exists(name, name == 'lm_head')")),
        holds=lambda spec: spec.method in (*TOKEN_METHODS, OWN) or "lm_head" not in spec[_TARGETS],
        open=(_METHOD,),
    ),
    Rule(
        id="kto-batch",
        requirement="B-01",
        path=_BATCH,
        message="must be at least 2 with method kto, which compares each prompt with the answer to another one",
        cel=cel.any_of(f"!({_is('kto')})", f"{cel.value(_BATCH)} >= 2"),
        holds=lambda spec: spec.method != "kto" or spec[_BATCH] >= 2,
        open=(_METHOD, _BATCH),
    ),
    *(_writer_rule(path) for path in ("output.merge", "output.export.gguf.enabled")),
    address_rule("dpo.referenceModel", MODEL_SCHEMES),
    address_rule("kto.referenceModel", MODEL_SCHEMES),
    *GRPO_RULES,
)
