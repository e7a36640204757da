"""An existing LoRA adapter (``adapter.attach``): two files, looked at by names and headers; weights are never loaded here."""

from __future__ import annotations

from typing import Any, Final

from finetune_trainer.estimate.shape import ModelShape, tensor_shapes
from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.digest import directory_digest
from finetune_trainer.sources.hub import FilePatterns, fetch_snapshot
from finetune_trainer.sources.model_directory import ModelFiles, check_header, local_files, read_json
from finetune_trainer.sources.remote_model import remote_files
from finetune_trainer.sources.resolve import FetchedModel, fetch_files

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
FILES: Final = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
PREFIX: Final = "base_model.model."
"""PEFT's name for the model below an adapter."""


def fetch_adapter(source: Source, context: SourceContext, method: str, *, pinned: str | None = None) -> FetchedModel:
    """Fetch and check an adapter; ``pinned`` is the revision an earlier attempt froze (used for hub repositories).

    Raises the source's error for what is no adapter, or none that the method can go on from.
    """
    if source.scheme == "hf":
        commit = pinned if pinned and len(pinned) == 40 else None
        snapshot = fetch_snapshot(source, context, "model", FilePatterns(allow=FILES), pinned=commit)
        directory, revision = snapshot.directory, snapshot.commit
    else:
        directory = fetch_files(source, context, FILES)
        revision = directory_digest(directory, [name for name in FILES if (directory / name).is_file()])
    check_adapter(source, local_files(directory), method)
    return FetchedModel(directory, revision, {})


def check_remote_adapter(source: Source, context: SourceContext, method: str, model: ModelShape | None) -> None:
    """Check an adapter where it lies, against the shapes of the model where they are known."""
    files = remote_files(source, context)
    if files is None:
        return
    check_adapter(source, files, method)
    if model is not None:
        check_fit(source, files, model)


def check_adapter(source: Source, files: ModelFiles, method: str) -> None:
    """It must have both files, be a LoRA adapter, and of a model that does what the method trains."""
    for name in FILES:
        if name not in files.sizes:
            found = ", ".join(sorted(name for name in files.sizes if "/" not in name)[:10]) or "nothing"
            raise source_error(source, f"{name} is missing: no adapter directory in PEFT's format; it holds {found}.")
    check_header(source, files, ADAPTER_WEIGHTS)
    document = _config(source, files)
    kind = document.get("peft_type")
    if kind != "LORA":
        raise source_error(source, f"its peft_type is {kind}; training can go on from a LORA adapter.")
    wanted, task = "SEQ_CLS" if method == "reward" else "CAUSAL_LM", document.get("task_type")
    if task not in (None, wanted):
        raise source_error(source, f"it was made for task {task}; method {method} trains {wanted}.")


def check_fit(source: Source, files: ModelFiles, model: ModelShape) -> None:
    """Compare its matrices with those they sit on, by their names; names that the model's files do not have are the worker's to judge."""
    for name, shape in tensor_shapes(files, ADAPTER_WEIGHTS).items():
        module, found, _ = name.removeprefix(PREFIX).partition(".lora_")
        base = model.tensors.get(module)
        if not found or base is None or len(base) != 2 or len(shape) != 2:
            continue
        inner = shape[1] if ".lora_A" in name else shape[0]
        if ".lora_A" in name or ".lora_B" in name:
            _compare(source, module, inner, base)


def _compare(source: Source, module: str, inner: int, base: tuple[int, ...]) -> None:
    if inner not in base:
        raise source_error(
            source,
            f"it was made for another model: of {module} it has a side of {inner}, in model.uri that is {base[0]} x {base[1]}.",
        )


def _config(source: Source, files: ModelFiles) -> dict[str, Any]:
    document = read_json(source, files, ADAPTER_CONFIG)
    if not isinstance(document, dict):
        raise source_error(source, f"{ADAPTER_CONFIG} is no object.")
    return document
