"""README.md of a result: what it is, what it was made from, how to load it. The hub reads the YAML at its head."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import Exported, FinalManifest, Pinned
from finetune_trainer.vision import PROCESSOR_FILES

CARD = "README.md"
HIDDEN = ("secrets", "secretRef")


def model_card(config: RunConfig, final: FinalManifest, pinned: Pinned, exported: Sequence[Exported] = (), *, sees: bool = False) -> bytes:
    """The card of a result; ``exported`` are the forms of it that exist beside the final weights, with ``sees`` it reads images too."""
    spec, card = config.spec, config.spec.output.model_card
    title = card.title or spec.display_name or config.job.name
    base = spec.model.uri.removeprefix("hf://").partition("@")[0]
    is_whole = final.kind == "full" or any(each.type == "merged" for each in exported)
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": "transformers" if is_whole else "peft",
        "pipeline_tag": _task(config, sees=sees).tag,
        "tags": [*dict.fromkeys([spec.builtin_method, *([] if final.kind == "full" else ["lora"]), *(card.tags or [])])],
    }
    if card.license is not None:
        head["license"] = card.license
    if card.language:
        head["language"] = list(card.language)
    if spec.dataset.uri.startswith("hf://"):
        head["datasets"] = [spec.dataset.uri.removeprefix("hf://").partition("@")[0]]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        f"Made from [{base}](#lineage) by {_kind(config, final)} on `{spec.dataset.uri}`.",
        _results(final),
        _forms(exported),
        f"## Use\n\n```python\n{_usage(config, final, exported, sees=sees)}\n```",
        _lineage(config, final, pinned),
        _settings(config),
    ]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def _kind(config: RunConfig, final: FinalManifest) -> str:
    adapter = config.spec.adapter
    how = "training all weights" if final.kind == "full" else f"LoRA (rank {adapter.rank}, alpha {adapter.alpha or adapter.rank})"
    return f"{config.spec.builtin_method.upper()} with {how}"


def _results(final: FinalManifest) -> str:
    rows = [f"| {name} | {value:.6g} |" for name, value in sorted(final.metrics.items())]
    return "\n".join(["## Results", "", f"Weights of step {final.step} ({final.source}).", "", "| metric | value |", "|---|---|", *rows])


def _forms(exported: Sequence[Exported]) -> str:
    if not exported:
        return ""
    rows = [
        f"| {each.name or each.type} | {', '.join(file.path for file in each.files[:1])} | {each.size_bytes} | {_delta(each.max_delta)} |"
        for each in exported
    ]
    note = "Difference: the largest one between its logits and those of the final weights, measured after reading it back."
    return "\n".join(["## Forms", "", "| form | file | bytes | difference |", "|---|---|---|---|", *rows, "", note])


def _delta(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _usage(config: RunConfig, final: FinalManifest, exported: Sequence[Exported], *, sees: bool) -> str:
    task, reader = _task(config, sees=sees).loader, "AutoProcessor" if sees else "AutoTokenizer"
    trust = ", trust_remote_code=True" if config.spec.model.trust_remote_code else ""
    words = f'{"processor" if sees else "tokenizer"} = {reader}.from_pretrained("PATH"{trust})'
    if final.kind == "full" or any(each.type == "merged" for each in exported):
        load = f'model = AutoModelFor{task}.from_pretrained("PATH", dtype="auto"{trust})'
        return f"from transformers import AutoModelFor{task}, {reader}\n\n{load}\n{words}"
    if sees:  # PEFT's own loader knows models of texts alone
        base = f'base = AutoModelFor{task}.from_pretrained("BASE", dtype="auto"{trust})'
        load = f'{base}\nmodel = PeftModel.from_pretrained(base, "PATH")'
        return f"from peft import PeftModel\nfrom transformers import AutoModelFor{task}, {reader}\n\n{load}\n{words}"
    load = f'model = AutoPeftModelFor{task}.from_pretrained("PATH", dtype="auto"{trust})'
    return f"from peft import AutoPeftModelFor{task}\nfrom transformers import {reader}\n\n{load}\n{words}"


class _Task(NamedTuple):
    """What a result does: the hub's word, and the end of transformers' class."""

    tag: str
    loader: str


def _task(config: RunConfig, *, sees: bool) -> _Task:
    if config.spec.method == "reward":
        return _Task("text-classification", "SequenceClassification")
    return _Task("image-text-to-text", "ImageTextToText") if sees else _Task("text-generation", "CausalLM")


def has_processor(names: Iterable[str]) -> bool:
    """Whether files of a result are those of a model that sees: it has an image processor."""
    return any(name in PROCESSOR_FILES for name in names)


def _lineage(config: RunConfig, final: FinalManifest, pinned: Pinned) -> str:
    rows = {
        "job": f"{config.job.namespace}/{config.job.name} ({config.job.uid})",
        "attempt, step": f"{final.attempt}, {final.step}",
        "base model": config.spec.model.uri,
        "base revision": pinned.model_revision,
        **{f"{role} revision": revision for role, revision in pinned.companions.items()},
        "data": config.spec.dataset.uri,
        "data digest": pinned.dataset_digest,
        "seed": config.spec.training.seed,
        "precision": pinned.dtype,
        "global batch": pinned.global_batch,
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(pinned.versions.items())),
    }
    return "\n".join(
        ["## Lineage", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value is not None)]
    )


def _settings(config: RunConfig) -> str:
    spec = config.spec.model_dump(
        by_alias=True, mode="json", exclude_none=True, include={"method", "adapter", "precision", "training", "dataset"}
    )
    text = json.dumps(_public(spec), indent=1, ensure_ascii=False)
    return f"<details><summary>Settings</summary>\n\n```json\n{text}\n```\n</details>"


def _public(node: Any) -> Any:
    """Settings without the names of Secrets, which mean nothing elsewhere."""
    if isinstance(node, Mapping):
        return {key: _public(value) for key, value in node.items() if key not in HIDDEN}
    return node
