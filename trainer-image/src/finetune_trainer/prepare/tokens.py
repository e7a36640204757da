"""From examples to token ids and labels, as TRL prepares them for each format: what is trained, and what is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_trainer.prepare.examples import Chat, Example, Pair, Text
from finetune_trainer.prepare.rows import data_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that does not count in the loss."""


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens."""

    sequence: int
    prompt: int
    completion: int | None = None


@dataclass(frozen=True)
class Encoded:
    """A row ready for training."""

    input_ids: list[int]
    labels: list[int]
    """Equal to ``input_ids``, :data:`IGNORED` where nothing is learnt."""
    length: int
    """Tokens before ``maxSeqLength`` cut it."""
    prompt_cut: bool = False

    @property
    def is_cut(self) -> bool:
        """The row was longer than ``maxSeqLength``."""
        return len(self.input_ids) < self.length

    @property
    def is_trainable(self) -> bool:
        """At least one token counts; the first never does, as nothing comes before it."""
        return any(label != IGNORED for label in self.labels[1:])


class Encoder:
    """Tokenises examples in batches (one call of the tokenizer for many texts)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits

    def encode(self, examples: Sequence[tuple[str, Example]]) -> list[Encoded]:
        """Encode (place, example) pairs; the place names a row in errors.

        Raises :class:`TrainerError` (DataError) when the tokenizer has no chat template or the template refuses a row.
        """
        texts: list[str] = []
        spans: list[tuple[int, bool]] = []
        for where, example in examples:
            rendered, special = self._render(where, example)
            spans.append((len(rendered), special))
            texts += rendered
        # Rendered chats carry their special tokens as text; raw texts get the tokenizer's own (BOS).
        specials = [special for count, special in spans for _ in range(count)]
        ids = self._token_ids(texts, specials)
        results, at = [], 0
        for count, _ in spans:
            results.append(self._finish(ids[at : at + count]))
            at += count
        return results

    def _token_ids(self, texts: Sequence[str], specials: Sequence[bool]) -> list[list[int]]:
        ids: list[list[int]] = [[] for _ in texts]
        for special in (True, False):
            chosen = [index for index, wanted in enumerate(specials) if wanted is special]
            if chosen:
                encoded: Any = self._tokenizer([texts[index] for index in chosen], add_special_tokens=special, verbose=False)
                for index, row in zip(chosen, encoded["input_ids"], strict=True):
                    ids[index] = row
        return ids

    def _render(self, where: str, example: Example) -> tuple[list[str], bool]:
        """Return the texts to tokenise (whole, or prompt and whole) and whether the tokenizer adds its special tokens."""
        eos = self._tokenizer.eos_token or ""
        match example:
            case Text(text):
                return [text if text.endswith(eos) else text + eos], True
            case Chat(messages, tools):
                return [self._template(where, messages, tools)], False
            case Pair(str() as prompt, str() as completion):
                return [prompt, prompt + (completion if completion.endswith(eos) else completion + eos)], True
            case Pair(prompt, completion, tools):
                assert not isinstance(prompt, str), "parse() refuses a text beside a list"
                assert not isinstance(completion, str), "parse() refuses a text beside a list"
                whole = self._template(where, [*prompt, *completion], tools)
                return [self._template(where, prompt, tools, add_generation_prompt=True), whole], False

    def _template(self, where: str, messages: Sequence[object], tools: Sequence[object] | None, **options: bool) -> str:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise data_error(
                f"{where}: the row is a conversation and the tokenizer has no chat template; set model.tokenizer.uri to one that has"
            )
        try:
            rendered = self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise data_error(f"{where}: the chat template refuses this conversation: {error}") from error
        assert isinstance(rendered, str)
        return rendered

    def _finish(self, ids: Sequence[list[int]]) -> Encoded:
        """Build labels and apply the limits to one row: ``[whole]`` or ``[prompt, whole]``."""
        whole = ids[-1]
        if len(ids) == 1:
            return Encoded(whole[: self._limits.sequence], whole[: self._limits.sequence], length=len(whole))
        # The completion starts where both part: tokens may merge over the boundary, and a template may end a prompt otherwise.
        start = common_prefix(ids[0], whole)
        prompt = cut_left(whole[:start], self._limits.prompt, self._tokenizer.bos_token_id)
        completion = whole[start:][: self._limits.completion]
        row = [*prompt, *completion]
        labels = [IGNORED] * len(prompt) + completion
        end = self._limits.sequence
        return Encoded(row[:end], labels[:end], length=len(row), prompt_cut=len(prompt) < start)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    return next((index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def cut_left(ids: list[int], limit: int, bos: int | None) -> list[int]:
    """Keep the last ``limit`` tokens; a begin-of-sequence token at the start stays and counts."""
    if len(ids) <= limit:
        return ids
    if bos is not None and ids[0] == bos:
        return [bos, *ids[len(ids) - limit + 1 :]] if limit > 1 else [bos]
    return ids[len(ids) - limit :]
