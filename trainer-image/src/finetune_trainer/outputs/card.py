"""README.md of a result: what it is, what it was made from, how to load it. The hub reads the YAML at its head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import Exported, FinalManifest, Pinned

CARD = "README.md"
HIDDEN = ("secrets", "secretRef")


def model_card(config: RunConfig, final: FinalManifest, pinned: Pinned, exported: Sequence[Exported] = ()) -> bytes:
    """The card of a result; ``exported`` are the forms of it that exist beside the final weights."""
    spec, card = config.spec, config.spec.output.model_card
    title = card.title or spec.display_name or config.job.name
    base = spec.model.uri.removeprefix("hf://").partition("@")[0]
    is_whole = final.kind == "full" or any(each.type == "merged" for each in exported)
    head: dict[str, Any] = {
        "base_model": base,
        "library_name": "transformers" if is_whole else "peft",
        "pipeline_tag": "text-classification" if spec.method == "reward" else "text-generation",
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
        f"## Use\n\n```python\n{_usage(config, final, exported)}\n```",
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


def _usage(config: RunConfig, final: FinalManifest, exported: Sequence[Exported]) -> str:
    task = "SequenceClassification" if config.spec.method == "reward" else "CausalLM"
    if final.kind == "lora" and not any(each.type == "merged" for each in exported):
        source, kind = "from peft import {}\nfrom transformers import AutoTokenizer", f"AutoPeftModelFor{task}"
    else:
        source, kind = "from transformers import {}, AutoTokenizer", f"AutoModelFor{task}"
    trust = ", trust_remote_code=True" if config.spec.model.trust_remote_code else ""
    load = f'model = {kind}.from_pretrained("PATH", dtype="auto"{trust})\ntokenizer = AutoTokenizer.from_pretrained("PATH"{trust})'
    return f"{source.format(kind)}\n\n{load}"


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
