"""Rules for vision-language models: which methods train them, and which ways of preparing rows know images."""

from __future__ import annotations

from typing import Final

from finetune_api import cel
from finetune_api.rules.rule import Rule
from finetune_api.written import Written

_METHOD: Final = "method"
VLM_ZIP: Final = "vlm-zip"
_IS_VISION = cel.any_of(f"{cel.value('model.type', '')} == 'VLM'", f"{cel.value('dataset.format')} == '{VLM_ZIP}'")


def _has_images(spec: Written) -> bool:
    return bool(spec["model.type"] == "VLM" or spec["dataset.format"] == VLM_ZIP)


VISION_RULES = (
    Rule(
        id="vlm-method",
        requirement="B-11",
        path="model.type",
        message="VLM is for method sft; the other methods train language models: write method: sft, or another model with type LLM",
        cel=cel.any_of(f"{cel.value('model.type', '')} != 'VLM'", f"{cel.value(_METHOD)} == 'sft'"),
        holds=lambda spec: spec["model.type"] != "VLM" or spec[_METHOD] == "sft",
        open=(_METHOD,),
    ),
    Rule(
        id="vlm-packing",
        requirement="E-24 B-11",
        path="dataset.packing",
        message="must be false with model.type VLM and format vlm-zip, for rows with images are not packed; with training.backend "
        "optimized write packing: false",
        cel=cel.any_of(
            f"!({_IS_VISION})",
            f"({cel.has('dataset.packing')} ? !{cel.value('dataset.packing')} : {cel.value('training.backend')} != 'optimized')",
        ),
        holds=lambda spec: (
            not _has_images(spec)
            or (not spec["dataset.packing"] if spec.has("dataset.packing") else spec["training.backend"] != "optimized")
        ),
        open=("dataset.packing", "training.backend"),
    ),
    Rule(
        id="vlm-later",
        requirement="E-13 E-14 B-11",
        path="dataset.lazyTokenize",
        message="and dataset.streaming must be false with model.type VLM and format vlm-zip: such rows are prepared before the training, "
        "with their images",
        cel=cel.any_of(f"!({_IS_VISION})", f"!({cel.value('dataset.lazyTokenize')} || {cel.value('dataset.streaming')})"),
        holds=lambda spec: not _has_images(spec) or not (spec["dataset.lazyTokenize"] or spec["dataset.streaming"]),
    ),
    Rule(
        id="vlm-attach",
        requirement="R-12 B-11",
        path="adapter.attach",
        message="is for language models; with model.type VLM an adapter begins anew: leave it out",
        cel=cel.any_of(f"{cel.value('model.type', '')} != 'VLM'", f"!{cel.has('adapter.attach')}"),
        holds=lambda spec: spec["model.type"] != "VLM" or not spec.has("adapter.attach"),
    ),
    Rule(
        id="vlm-template",
        requirement="E-10 E-07",
        path="dataset.promptTemplate",
        message="makes one text of a prompt and has no place for images: leave it out with format vlm-zip, or write chatTemplate",
        cel=cel.any_of(f"!{cel.has('dataset.promptTemplate')}", f"{cel.value('dataset.format')} != '{VLM_ZIP}'"),
        holds=lambda spec: not spec.has("dataset.promptTemplate") or spec["dataset.format"] != VLM_ZIP,
    ),
)
