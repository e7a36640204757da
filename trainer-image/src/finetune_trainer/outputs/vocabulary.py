"""The vocabulary of a GGUF file, from a Hugging Face tokenizer directory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gguf import TokenType

from finetune_trainer.outputs.families import gguf_error
from finetune_trainer.outputs.splits import SENTENCE_PIECE, pre_tokenizer_of

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

SPECIAL: Final = ("bos", "eos", "unk", "pad")
BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-F]{2}>")
UNREACHED_SCORE: Final = -1e9
"""Score of a SentencePiece token that no merge makes."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, and how text becomes tokens."""

    model: str
    """``tokenizer.ggml.model``: gpt2 (byte-level BPE) or llama (SentencePiece)."""
    pre: str
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float]
    """Only for llama: the higher, the earlier a token is merged."""
    merges: Sequence[str]
    """Only for gpt2."""
    special_ids: Mapping[str, int]
    adds_bos: bool
    adds_space_prefix: bool
    chat_template: str | None
    unused: int = field(default=0)
    """Rows of the embedding that no token has."""

    def write(self, writer: GGUFWriter) -> None:
        """Add the vocabulary to a file that is being made."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.adds_space_prefix)
        if self.merges:
            writer.add_token_merges(self.merges)
        adders = {
            "bos": writer.add_bos_token_id,
            "eos": writer.add_eos_token_id,
            "unk": writer.add_unk_token_id,
            "pad": writer.add_pad_token_id,
        }
        for name, number in self.special_ids.items():
            adders[name](number)
        writer.add_add_bos_token(self.adds_bos)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_vocabulary(directory: Path, rows: int) -> Vocabulary:
    """Read a tokenizer directory; ``rows`` is the size of the model's embedding.

    Raises :class:`TrainerError` (ModelError) when the tokenizer is of a kind that GGUF has no name for, or has more tokens than the model.
    """
    from finetune_trainer.prepare.tokenizer import load_tokenizer

    try:
        document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise gguf_error("the model has no tokenizer.json, from which the vocabulary is taken") from error
    tokenizer = load_tokenizer(directory)
    pre = pre_tokenizer_of(document)
    tokens = _tokens(document, rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    is_sentence_piece = pre == SENTENCE_PIECE
    return Vocabulary(
        model="llama" if is_sentence_piece else "gpt2",
        pre="default" if is_sentence_piece else pre,
        tokens=tokens,
        types=_types(document, tokens, rows),
        scores=_scores(tokens, merges) if is_sentence_piece else (),
        merges=() if is_sentence_piece else merges,
        special_ids={name: number for name in SPECIAL if (number := getattr(tokenizer, f"{name}_token_id")) is not None},
        adds_bos=_adds_bos(tokenizer),
        adds_space_prefix=_adds_space_prefix(document),
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        unused=rows - len(_ids(document)),
    )


def _ids(document: Mapping[str, Any]) -> dict[int, str]:
    ids: dict[int, str] = {number: token for token, number in document["model"]["vocab"].items()}
    return ids | {entry["id"]: entry["content"] for entry in document.get("added_tokens") or ()}


def _tokens(document: Mapping[str, Any], rows: int) -> list[str]:
    ids = _ids(document)
    if ids and max(ids) >= rows:
        raise gguf_error(f"the tokenizer has a token {max(ids)}, the model's embedding only {rows} rows")
    return [ids.get(number, f"[PAD{number}]") for number in range(rows)]


def _types(document: Mapping[str, Any], tokens: Sequence[str], rows: int) -> list[int]:
    ids = _ids(document)
    added = {
        entry["id"]: TokenType.CONTROL if entry.get("special") else TokenType.USER_DEFINED for entry in document.get("added_tokens") or ()
    }
    unknown = document["model"].get("unk_token")
    has_bytes = bool(document["model"].get("byte_fallback"))

    def kind(number: int) -> TokenType:
        if number not in ids:
            return TokenType.UNUSED
        if tokens[number] == unknown:
            return TokenType.UNKNOWN
        if has_bytes and BYTE_TOKEN.fullmatch(tokens[number]):
            return TokenType.BYTE
        return added.get(number, TokenType.NORMAL)

    return [int(kind(number)) for number in range(rows)]


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """SentencePiece merges the pair whose whole scores highest; a tokenizer.json keeps that order as the order of its merges."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        first.setdefault(left + right, rank)
    return [-float(first[token]) if token in first else UNREACHED_SCORE for token in tokens]


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a").input_ids
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _adds_space_prefix(document: Mapping[str, Any]) -> bool:
    before = document.get("pre_tokenizer") or {}
    if before.get("type") == "Metaspace":
        return bool(before.get("prepend_scheme", "always") != "never")
    normalizer = document.get("normalizer") or {}
    parts = normalizer.get("normalizers") or [normalizer]
    return any(part.get("type") == "Prepend" for part in parts)
