"""Which of llama.cpp's tokenizers a tokenizer.json stands for: how text is split before tokens are merged.

A GGUF file names the way of splitting (``tokenizer.ggml.pre``); a wrong name gives other tokens without a word: unknown ones are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError

SENTENCE_PIECE: Final = "sentencepiece"
"""No splitting: the vocabulary is SentencePiece's (``tokenizer.ggml.model`` llama)."""
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
REGEXES: Final[Mapping[str, str]] = {
    _LLAMA3: "llama-bpe",
    _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
}
"""Regular expression of a Split -> llama.cpp's name."""


def pre_tokenizer_of(tokenizer: Mapping[str, Any]) -> str:
    """Return the name of the split, or :data:`SENTENCE_PIECE`. Raises :class:`TrainerError` (ModelError) for one that is not known."""
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE":
        raise _error(f"a tokenizer of type {model.get('type')!r}")
    parts = _parts(tokenizer.get("pre_tokenizer"))
    kinds = [part.get("type") for part in parts]
    if model.get("byte_fallback"):
        if kinds in ([], ["Metaspace"]):
            return SENTENCE_PIECE
    elif kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    elif kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        name = REGEXES.get((parts[0].get("pattern") or {}).get("Regex", ""))
        if name is not None:
            return name
    raise _error(f"a tokenizer that splits text by {' and '.join(map(str, kinds)) or 'nothing'} in a way of its own")


def _parts(node: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if node is None:
        return []
    return node.get("pretokenizers") or [] if node.get("type") == "Sequence" else [node]


def _error(found: str) -> TrainerError:
    return TrainerError(
        FailureClass.MODEL,
        f"output.export.gguf: the model has {found}, for which llama.cpp has no name here (known: gpt-2, smollm, "
        f"{', '.join(REGEXES.values())}, SentencePiece); set output.export.gguf.enabled to false",
    )
