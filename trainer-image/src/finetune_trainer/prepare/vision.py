"""Token ids of conversations with images: texts as for any model, an image as many tokens as its size asks for.

Image tokens are never learnt, and never cut: pixels without their tokens are an error in every model. What no longer fits is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.prepare.encoded import IGNORED, Encoded, Ready
from finetune_trainer.prepare.examples import Chat, Example, Message, Pair
from finetune_trainer.prepare.images import ImageStore
from finetune_trainer.prepare.processor import replacements
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_error
from finetune_trainer.prepare.spans import Span
from finetune_trainer.prepare.tokens import Encoder, Limits


@dataclass(frozen=True)
class EncodedSight:
    """A sequence and its images."""

    tokens: Encoded
    images: Sequence[int]
    """Places in the table of images, in the order of the text."""
    is_whole: bool
    """No token of an image was cut off."""

    @property
    def length(self) -> int:
        """Tokens before any cut, those of images among them."""
        return self.tokens.length

    @property
    def prompt_cut(self) -> bool:
        """The prompt was longer than ``promptMaxLength``."""
        return self.tokens.prompt_cut

    @property
    def is_cut(self) -> bool:
        """The row was longer than ``maxSeqLength``."""
        return self.tokens.is_cut

    @property
    def is_trainable(self) -> bool:
        """Something is left to learn, and all images are."""
        return self.is_whole and self.tokens.is_trainable

    def columns(self) -> Mapping[str, object]:
        """Token ids, labels and places of images."""
        return {**self.tokens.columns(), "images": list(self.images)}


class SightEncoder(Encoder):
    """Tokenises rows of a vision-language model."""

    def __init__(self, processor: Any, limits: Limits, images: ImageStore) -> None:
        super().__init__(processor.tokenizer, limits)
        self._processor, self._images = processor, images
        self._image_ids = frozenset(processor.image_token_ids)

    def encode(self, examples: Sequence[tuple[str, Example]], rejects: Rejects | None = None) -> list[list[Ready]]:
        """Encode (place, example) pairs whose images the store has just taken; see :meth:`Encoder.encode`."""
        rejects = rejects or Rejects(skip=False)
        found = [self._encode_one(where, example, rejects) for where, example in examples]
        self._images.release()
        return found

    def _encode_one(self, where: str, example: Example, rejects: Rejects) -> list[Ready]:
        rendered = self._try(where, example, rejects)
        if rendered is None:
            return []
        images, token, whole = list(_images(example)), self._processor.image_token, rendered.texts[-1]
        if whole.count(token) != len(images):
            rejects.add(
                data_error(
                    f"{where}: the row has {len(images)} images, and the chat template makes {whole.count(token)} times {token} of it"
                )
            )
            return []
        shown = [self._images.decoded(number) for number in images]
        grown = replacements(self._processor, whole, shown) if shown else []
        spans = [_moved(span, whole, token, grown) for span in rendered.spans] if rendered.spans is not None else None
        texts = [(_expanded(text, token, grown), rendered.special, spans is not None) for text in rendered.texts]
        tokens = self._tokenise(texts)
        (opening,) = self._openings([(where, example)], [tokens], rejects, lambda text: _expanded(text, token, grown))
        if opening is None:
            return []
        return [self._sight(row, images, texts[-1][0].count(token)) for row in self._finish(example, tokens, spans, opening)]

    def _sight(self, row: Ready, images: Sequence[int], image_tokens: int) -> EncodedSight:
        assert isinstance(row, Encoded), "method sft makes sequences"
        labels = [IGNORED if token in self._image_ids else label for token, label in zip(row.input_ids, row.labels, strict=True)]
        kept = sum(token in self._image_ids for token in row.input_ids)
        return EncodedSight(Encoded(row.input_ids, labels, row.length, prompt_cut=row.prompt_cut), images, kept == image_tokens)

    def _template(self, where: str, messages: Sequence[object], tools: Sequence[object] | None, **options: bool) -> str:
        # Templates of some models read nothing but lists of parts.
        return super()._template(where, [_in_parts(message) for message in messages], tools, **options)


def _in_parts(message: object) -> object:
    if isinstance(message, Mapping) and isinstance(message.get("content"), str):
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
    return message


def _images(example: Example) -> Iterator[int]:
    """Places of an example's images, in the order of its text."""
    match example:
        case Chat(messages):
            turns: Sequence[Message] = messages
        case Pair(prompt, completion) if not isinstance(prompt, str) and not isinstance(completion, str):
            turns = [*prompt, *completion]
        case _:
            turns = []
    for message in turns:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if part["type"] == "image":
                yield part["image"]


def _expanded(text: str, token: str, grown: Sequence[str]) -> str:
    """A text with what the processor puts in the place of its images; a prompt shows the first of them."""
    first, *others = text.split(token)
    return first + "".join(image + other for image, other in zip(grown, others, strict=False))


def _moved(span: Span, text: str, token: str, grown: Sequence[str]) -> Span:
    """A span of a text, where it lies in the expanded one."""
    shifts = [sum(len(image) - len(token) for image in grown[: text.count(token, 0, at)]) for at in span]
    return Span(span.start + shifts[0], span.end + shifts[1])
