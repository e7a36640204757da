"""From examples to token ids, as TRL prepares them for each method: what is trained, and what is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.prepare.encoded import IGNORED, Encoded, EncodedAnswers, EncodedTask, Ready
from finetune_trainer.prepare.examples import Chat, Example, Message, Pair, Preference, Task, Text, Turns, Verdict
from finetune_trainer.prepare.purpose import purpose_of
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_error
from finetune_trainer.prepare.spans import Span, UnknownTurnError, assistant_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens."""

    sequence: int
    prompt: int
    completion: int | None = None
    splits_texts: bool = False
    """Texts longer than a sequence become several rows, so that nothing of them is lost (pretrain)."""

    @classmethod
    def of(cls, spec: FineTuneJobSpec, sequence: int) -> Limits:
        """The limits of a job whose longest sequence is known."""
        dataset, purpose = spec.dataset, purpose_of(spec)
        limits = cls(sequence, dataset.prompt_max_length, dataset.content_max_length, purpose == "text")
        return limits.for_generation() if purpose == "task" else limits

    @property
    def opening(self) -> int | None:
        """The limit on what comes before the last answer of a conversation; None where a sequence has no room for that much anyway."""
        return self.prompt if self.prompt < self.sequence else None

    def for_generation(self) -> Limits:
        """The limits where the model writes the completion, which shares the sequence with the prompt, in halves by default.

        Raises :class:`TrainerError` (ConfigurationError) when no room is left for the prompt.
        """
        completion = self.completion or self.sequence // 2
        if completion >= self.sequence:
            raise configuration_error(
                f"dataset.contentMaxLength: {completion} generated tokens leave no room for the prompt in {self.sequence} tokens; "
                "lower it or raise training.maxSeqLength"
            )
        return replace(self, prompt=min(self.prompt, self.sequence - completion), completion=completion)


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

    def encode(self, examples: Sequence[tuple[str, Example]], rejects: Rejects | None = None) -> list[list[Ready]]:
        """Encode (place, example) pairs, each to the rows it becomes; the place names a row in errors.

        A text is several rows where it is longer than a sequence and nothing of it may be lost. No row at all stands for an example that
        went to ``rejects``; without them the first one raises :class:`TrainerError` (DataError): the tokenizer has no chat template, or
        the template refuses the row.
        """
        rejects = rejects or Rejects(skip=False)
        rendered = [(example, self._try(where, example, rejects)) for where, example in examples]
        # Rendered chats carry their special tokens as text; raw texts get the tokenizer's own (BOS).
        texts = [(text, found.special, found.spans is not None) for _, found in rendered if found is not None for text in found.texts]
        ids = iter(self._tokenise(texts))
        tokens = [[] if found is None else [next(ids) for _ in found.texts] for _, found in rendered]
        openings = self._openings(examples, tokens, rejects)
        return [
            [] if found is None or opening is None else self._finish(example, row, found.spans, opening)
            for (example, found), row, opening in zip(rendered, tokens, openings, strict=True)
        ]

    def _openings(
        self,
        examples: Sequence[tuple[str, Example]],
        tokens: Sequence[Sequence[_Tokens]],
        rejects: Rejects,
        expand: Callable[[str], str] = str,
    ) -> list[list[int] | None]:
        """Tokens of what comes before the last answer of each conversation that may be cut there, none of all others; None: rejected.

        ``expand`` is what became of the texts before they were tokenised.
        """
        texts: dict[int, str | None] = {}
        for index, ((where, example), row) in enumerate(zip(examples, tokens, strict=True)):
            if row and isinstance(example, Chat) and self._may_cut(example, row[0].ids):
                texts[index] = self._try_opening(where, example, rejects)
        known = {index: text for index, text in texts.items() if text is not None}
        ids = self._tokenise([(expand(text), False, False) for text in known.values()])
        found = {index: opening.ids for index, opening in zip(known, ids, strict=True)}
        return [None if index in texts and index not in found else found.get(index, []) for index in range(len(examples))]

    def _may_cut(self, chat: Chat, ids: Sequence[int]) -> bool:
        """Whether the limits of prompt and completion may cut a conversation of these tokens.

        One with several answers to learn is no prompt and its completion: the limit on prompts would drop answers.
        """
        limits = self._limits
        answers = {at for at, message in enumerate(chat.messages) if message.get("role") == "assistant"}
        if len(answers if chat.trained is None else answers & chat.trained) > 1:
            return False
        return not limits.splits_texts and any(limit is not None and len(ids) > limit for limit in (limits.opening, limits.completion))

    def _try_opening(self, where: str, chat: Chat, rejects: Rejects) -> str | None:
        """What comes before the last answer, rendered: all where there is no answer, nothing where the answer comes first."""
        last = max((at for at, message in enumerate(chat.messages) if message.get("role") == "assistant"), default=len(chat.messages))
        try:
            return self._template(where, chat.messages[:last], chat.tools, add_generation_prompt=True) if last else ""
        except TrainerError as error:
            rejects.add(error)
            return None

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
        """The texts to tokenise: whole; prompt and whole for each answer; prompt."""
        match example:
            case Text(text):
                return _Rendered([self._ended(text)], special=True)
            case Chat(messages, tools, trained):
                if trained is not None:
                    return self._render_turns(where, messages, tools, trained)
                return _Rendered([self._template(where, messages, tools)], special=False)
            case Pair(prompt, completion, tools) | Verdict(prompt, completion, _, tools):
                return self._answered(where, prompt, [completion], tools)
            case Preference(prompt, chosen, rejected, tools):
                return self._answered(where, prompt, [chosen, rejected], tools)
            case Task(str() as prompt):
                return _Rendered([prompt], special=True)
            case Task(prompt, columns):
                assert not isinstance(prompt, str), "the case above"
                tools = cast("Sequence[object] | None", columns.get("tools"))
                return _Rendered([self._template(where, prompt, tools, add_generation_prompt=True)], special=False)

    def _answered(self, where: str, prompt: Turns, answers: Sequence[Turns], tools: Sequence[object] | None) -> _Rendered:
        """Render the prompt, and the prompt with each answer."""
        if isinstance(prompt, str):
            texts = [answer for answer in answers if isinstance(answer, str)]
            assert len(texts) == len(answers), "canonical rows have no text beside a list"
            return _Rendered([prompt, *(prompt + self._ended(text) for text in texts)], special=True)
        turns = [answer for answer in answers if not isinstance(answer, str)]
        assert len(turns) == len(answers), "canonical rows have no text beside a list"
        start = self._template(where, prompt, tools, add_generation_prompt=True)
        return _Rendered([start, *(self._template(where, [*prompt, *answer], tools) for answer in turns)], special=False)

    def _ended(self, text: str) -> str:
        eos = str(self._tokenizer.eos_token or "")
        return text if text.endswith(eos) else text + eos

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

    def _finish(self, example: Example, tokens: Sequence[_Tokens], spans: Sequence[Span] | None, opening: list[int]) -> list[Ready]:
        """Build the rows of one example and apply the limits; ``tokens`` are those of what :meth:`_render` returned."""
        ids = [text.ids for text in tokens]
        match example:
            case Text():
                return list(self._sequences(ids[0]))
            case Chat() if self._limits.splits_texts:
                return list(self._sequences(ids[0]))
            case Chat():
                labels = ids[0] if spans is None else _labels(tokens[0], spans)
                return [self._chat(ids[0], labels, opening if self._may_cut(example, ids[0]) else None)]
            case Pair():
                return [self._pair(*ids)]
            case Preference():
                return [self._answers(ids, ("chosen_ids", "rejected_ids"))]
            case Verdict(is_good=is_good):
                return [self._answers(ids, ("completion_ids",), label=is_good)]
            case Task(prompt, columns):
                row = json.dumps({"prompt": prompt, **columns}, ensure_ascii=False)
                return [EncodedTask(row, len(ids[0]), prompt_cut=len(ids[0]) > self._limits.prompt)]

    def _sequences(self, ids: list[int]) -> Iterator[Encoded]:
        """A text, all of which is trained: cut, or split."""
        size = self._limits.sequence
        if not self._limits.splits_texts:
            yield Encoded(ids[:size], ids[:size], length=len(ids))
            return
        for start in range(0, max(len(ids), 1), size):
            part = ids[start : start + size]
            yield Encoded(part, part, length=len(part))

    def _chat(self, whole: list[int], labels: list[int], opening: list[int] | None) -> Encoded:
        """A conversation: what comes before its last answer is cut from the left, the answer and what follows from the right.

        Without an ``opening`` the limit of sequences alone counts.
        """
        end = self._limits.sequence
        if opening is None:
            return Encoded(whole[:end], labels[:end], length=len(whole))
        start = common_prefix(opening, whole)
        before = places_left(whole[:start], self._limits.opening or start, self._tokenizer.bos_token_id)
        places = [*before, *range(start, len(whole))[: self._limits.completion]]
        return Encoded(
            [whole[at] for at in places[:end]],
            [labels[at] for at in places[:end]],
            length=len(places),
            prompt_cut=len(before) < start,
        )

    def _pair(self, prompt_ids: list[int], whole: list[int]) -> Encoded:
        # The completion starts where both part: tokens may merge over the boundary, and a template may end a prompt otherwise.
        start = common_prefix(prompt_ids, whole)
        prompt = cut_left(whole[:start], self._limits.prompt, self._tokenizer.bos_token_id)
        completion = whole[start:][: self._limits.completion]
        row = [*prompt, *completion]
        labels = [IGNORED] * len(prompt) + completion
        end = self._limits.sequence
        return Encoded(row[:end], labels[:end], length=len(row), prompt_cut=len(prompt) < start)

    def _answers(self, ids: Sequence[list[int]], columns: Sequence[str], *, label: bool | None = None) -> EncodedAnswers:
        """Cut the prompt from the left and each answer from the right, so that each of them fits beside the prompt."""
        wholes = ids[1:]
        start = min(common_prefix(ids[0], whole) for whole in wholes)
        prompt = cut_left(wholes[0][:start], self._limits.prompt, self._tokenizer.bos_token_id)
        room = max(self._limits.sequence - len(prompt), 0)
        answers = {name: whole[start:][: self._limits.completion][:room] for name, whole in zip(columns, wholes, strict=True)}
        return EncodedAnswers(prompt, answers, length=max(map(len, wholes)), prompt_cut=len(prompt) < start, label=label)


def _labels(tokens: _Tokens, spans: Sequence[Span]) -> list[int]:
    """The tokens that lie in a span, wholly or in part; all others are ignored."""
    inside = [any(start < span.end and end > span.start for span in spans) for start, end in tokens.places]
    return [token if trained else IGNORED for token, trained in zip(tokens.ids, inside, strict=True)]


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    return next((index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def cut_left(ids: list[int], limit: int, bos: int | None) -> list[int]:
    """Keep the last ``limit`` tokens; a begin-of-sequence token at the start stays and counts."""
    return ids if len(ids) <= limit else [ids[at] for at in places_left(ids, limit, bos)]


def places_left(ids: Sequence[int], limit: int, bos: int | None) -> list[int]:
    """Places of the tokens that :func:`cut_left` keeps."""
    size = len(ids)
    if size <= limit:
        return list(range(size))
    if bos is not None and ids[0] == bos:
        return [0, *range(size - limit + 1, size)]
    return list(range(size - limit, size))
