"""From examples to token ids and labels, as TRL prepares them for each format: what is trained, and what is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.examples import Chat, Example, Message, Pair, Text
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_error
from finetune_trainer.prepare.spans import Span, UnknownTurnError, assistant_spans

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


class _Tokens(NamedTuple):
    """A tokenised text."""

    ids: list[int]
    places: Sequence[tuple[int, int]]
    """First character of each token and the one after its last, where they were asked for."""


@dataclass(frozen=True)
class _Rendered:
    """What is tokenised of one example."""

    texts: Sequence[str]
    special: bool
    """Whether the tokenizer adds its special tokens."""
    spans: Sequence[Span] | None = None
    """The trained parts of the one text; None: the format decides."""


class Encoder:
    """Tokenises examples in batches (one call of the tokenizer for many texts)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self._limits = limits

    def encode(self, examples: Sequence[tuple[str, Example]], rejects: Rejects | None = None) -> list[Encoded | None]:
        """Encode (place, example) pairs; the place names a row in errors.

        None stands for a row that went to ``rejects``; without them the first one raises :class:`TrainerError` (DataError): the tokenizer
        has no chat template, or the template refuses the row.
        """
        rejects = rejects or Rejects(skip=False)
        rendered = [self._try(where, example, rejects) for where, example in examples]
        kept = [found for found in rendered if found is not None]
        # Rendered chats carry their special tokens as text; raw texts get the tokenizer's own (BOS).
        texts = [(text, found.special, found.spans is not None) for found in kept for text in found.texts]
        ids = iter(self._tokenise(texts))
        return [None if found is None else self._finish([next(ids) for _ in found.texts], found.spans) for found in rendered]

    def _tokenise(self, texts: Sequence[tuple[str, bool, bool]]) -> list[_Tokens]:
        """Tokens of each (text, with special tokens, with their places): one call of the tokenizer per kind."""
        found: list[_Tokens] = [_Tokens([], [])] * len(texts)
        for kind in sorted({text[1:] for text in texts}):
            chosen = [index for index, text in enumerate(texts) if text[1:] == kind]
            special, placed = kind
            encoded: Any = self._tokenizer(
                [texts[index][0] for index in chosen], add_special_tokens=special, return_offsets_mapping=placed, verbose=False
            )
            places = encoded["offset_mapping"] if placed else [[]] * len(chosen)
            for index, ids, offsets in zip(chosen, encoded["input_ids"], places, strict=True):
                found[index] = _Tokens(ids, offsets)
        return found

    def _try(self, where: str, example: Example, rejects: Rejects) -> _Rendered | None:
        try:
            return self._render(where, example)
        except TrainerError as error:
            rejects.add(error)
            return None

    def _render(self, where: str, example: Example) -> _Rendered:
        """The texts to tokenise: whole, or prompt and whole."""
        eos = self._tokenizer.eos_token or ""
        match example:
            case Text(text):
                return _Rendered([text if text.endswith(eos) else text + eos], special=True)
            case Chat(messages, tools, trained):
                if trained is not None:
                    return self._render_turns(where, messages, tools, trained)
                return _Rendered([self._template(where, messages, tools)], special=False)
            case Pair(str() as prompt, str() as completion):
                return _Rendered([prompt, prompt + (completion if completion.endswith(eos) else completion + eos)], special=True)
            case Pair(prompt, completion, tools):
                assert not isinstance(prompt, str), "canonical rows have no text beside a list"
                assert not isinstance(completion, str), "canonical rows have no text beside a list"
                whole = self._template(where, [*prompt, *completion], tools)
                return _Rendered([self._template(where, prompt, tools, add_generation_prompt=True), whole], special=False)

    def _render_turns(self, where: str, messages: Sequence[Message], tools: Sequence[object] | None, trained: frozenset[int]) -> _Rendered:
        if not self._tokenizer.is_fast:
            raise TrainerError(
                FailureClass.CONFIGURATION,
                "dataset.assistantOnlyLoss needs a tokenizer that knows the place of each token (tokenizer.json); set model.tokenizer.uri "
                "to a directory that has one",
            )

        def render(part: Sequence[Message], **options: bool) -> str:
            return self._template(where, part, tools, **options)

        try:
            whole, spans = assistant_spans(render, messages, trained)
        except UnknownTurnError as error:
            raise data_error(f"{where}: the chat template does not show where the assistant's turn {error} begins and ends") from error
        return _Rendered([whole], special=False, spans=spans)

    def _template(self, where: str, messages: Sequence[object], tools: Sequence[object] | None, **options: bool) -> str:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise data_error(
                f"{where}: the row is a conversation and the tokenizer has no chat template; set dataset.chatTemplate, or "
                "model.tokenizer.uri to a tokenizer that has one"
            )
        try:
            rendered = self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise data_error(f"{where}: the chat template refuses this conversation: {error}") from error
        assert isinstance(rendered, str)
        return rendered

    def _finish(self, tokens: Sequence[_Tokens], spans: Sequence[Span] | None) -> Encoded:
        """Build labels and apply the limits to one row: ``[whole]`` or ``[prompt, whole]``."""
        whole, end = tokens[-1].ids, self._limits.sequence
        if len(tokens) == 1:
            labels = whole if spans is None else _labels(tokens[0], spans)
            return Encoded(whole[:end], labels[:end], length=len(whole))
        # The completion starts where both part: tokens may merge over the boundary, and a template may end a prompt otherwise.
        start = common_prefix(tokens[0].ids, whole)
        prompt = cut_left(whole[:start], self._limits.prompt, self._tokenizer.bos_token_id)
        completion = whole[start:][: self._limits.completion]
        row = [*prompt, *completion]
        labels = [IGNORED] * len(prompt) + completion
        return Encoded(row[:end], labels[:end], length=len(row), prompt_cut=len(prompt) < start)


def _labels(tokens: _Tokens, spans: Sequence[Span]) -> list[int]:
    """The tokens that lie in a span, wholly or in part; all others are ignored."""
    inside = [any(start < span.end and end > span.start for span in spans) for start, end in tokens.places]
    return [token if trained else IGNORED for token, trained in zip(tokens.ids, inside, strict=True)]


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
