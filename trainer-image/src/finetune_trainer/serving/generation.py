"""A loaded model: prompts in the form of the training in, answers out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from finetune_api.contract.serve import ChatMessage, ChatRequest, CompletionRequest, Question, Request, RowRequest, ServeConfig
from finetune_api.contract.store import SamplePrompt
from finetune_api.defaults import BASE
from finetune_api.models.sources import Dataset, DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.merge import load_weights
from finetune_trainer.prepare.formats.convert import Utterance, read_prompt
from finetune_trainer.prepare.formats.layout import find_layout
from finetune_trainer.prepare.processor import load_processor
from finetune_trainer.prepare.rows import Row, data_error
from finetune_trainer.prepare.tokenizer import load_tokenizer
from finetune_trainer.prepare.wrapping import Wrapping
from finetune_trainer.serving.board import Reply
from finetune_trainer.serving.weights import Tell, Weights
from finetune_trainer.supervisor.worker_env import available_cpus
from finetune_trainer.vision import has_vision, read_config
from finetune_trainer.worker.model import DTYPES, find_device, four_bits
from finetune_trainer.worker.precision import Dtype, Formats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROW = "the row"
"""What a row that is asked is called in errors."""
CONVERSATION = "the conversation"


class ModelGenerator:
    """Generates with a model. For one thread at a time."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, dataset: Dataset) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._wrapping = Wrapping.of(dataset, has_chat_template=bool(tokenizer.chat_template))
        self._source = DataSource(uri=dataset.uri)

    def chat(self, request: ChatRequest) -> Reply:
        """Go on with a conversation, in the form in which prompts were trained.

        Raises :class:`TrainerError` (DataError) for a conversation that has no such form, or does not fit into the model's context.
        """
        messages = [message.model_dump() for message in request.messages]
        # A question alone is what a text in a prompt column is: without a chat template it stays a text.
        prompt: Utterance = messages[0]["content"] if [each["role"] for each in messages] == ["user"] else messages
        wrapped = self._wrapping.wrap(Row(CONVERSATION, {"prompt": prompt})).fields["prompt"]
        if isinstance(wrapped, str):
            return self._generate(wrapped, request, special=True)
        return self._generate(self._templated(wrapped), request, special=False)

    def complete(self, request: CompletionRequest) -> Reply:
        """Go on with a text. Raises :class:`TrainerError` (DataError) when it does not fit into the model's context."""
        return self._generate(request.prompt, request, special=False)

    def read_row(self, request: RowRequest) -> Question:
        """Read a row of a dataset as a training would.

        Raises :class:`TrainerError` (DataError) for a row that asks nothing.
        """
        row = Row(ROW, request.row)
        source = self._source.model_copy(
            update={"format": request.format or BASE["dataset.format"], "prompt_column": request.prompt_column}
        )
        asked = _read(row, source)
        if isinstance(asked, str):
            return Question(messages=[ChatMessage(role="user", content=asked)])
        if any(each.get("role") not in ("system", "user", "assistant") or not isinstance(each.get("content"), str) for each in asked):
            raise data_error(f"{ROW} has calls or images in its prompt, which cannot be asked here")
        return Question(messages=[ChatMessage.model_validate({key: each[key] for key in ("role", "content")}) for each in asked])

    def as_questions(self, prompts: Sequence[SamplePrompt]) -> list[SamplePrompt]:
        """Prompts of the data that end where an answer begins.

        Of conversations in which every token is trained, the training keeps the first half of the text as the prompt, wherever that ends.
        """
        begins = self._answer_begins()
        return [_until_answer(each, begins, str(self._tokenizer.eos_token)) for each in prompts] if begins else list(prompts)

    def _answer_begins(self) -> str:
        """What the chat template writes before an answer; empty where it writes nothing of its own."""
        turn = [{"role": "user", "content": CONVERSATION}]
        try:
            before, opened = self._templated(turn, opens_answer=False), self._templated(turn)
        except TrainerError:
            return ""
        return opened.removeprefix(before) if opened.startswith(before) else ""

    def _templated(self, messages: object, *, opens_answer: bool = True) -> str:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise data_error(f"the tokenizer has no chat template, so {CONVERSATION} must be one question of the user")
        try:
            rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens_answer)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise data_error(f"the chat template refuses {CONVERSATION}: {error}") from error
        return str(rendered)

    def _generate(self, prompt: str, request: Request, *, special: bool) -> Reply:
        ids = self._tokenizer(prompt, add_special_tokens=special, return_tensors="pt").input_ids.to(self._model.device)
        given = int(ids.shape[1])
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and given + request.max_tokens > context:
            raise data_error(
                f"max_tokens: {given} tokens of the prompt and {request.max_tokens} more are above the model's context of {context}"
            )
        with torch.inference_mode():
            whole = self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=self._settings(request))
        generated = whole[0, given:]
        has_ended = bool(len(generated)) and int(generated[-1]) in self._ends()
        text = str(self._tokenizer.decode(generated, skip_special_tokens=True)).strip()
        return Reply(text, "stop" if has_ended else "length", given, len(generated))

    def _settings(self, request: Request) -> GenerationConfig:
        drawn = {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0} if request.temperature > 0 else {}
        padding = self._tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=request.temperature > 0,
            max_new_tokens=request.max_tokens,
            repetition_penalty=request.repetition_penalty,
            eos_token_id=self._ends(),
            pad_token_id=padding if padding is not None else self._tokenizer.eos_token_id,
            **drawn,
        )

    def _ends(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and those the model names itself."""
        own = self._model.generation_config.eos_token_id
        named: Sequence[int] = [] if own is None else [own] if isinstance(own, int) else own
        return sorted({int(each) for each in (self._tokenizer.eos_token_id, *named)})


def _until_answer(sample: SamplePrompt, begins: str, ends: str) -> SamplePrompt:
    """The prompt up to its last answer, which moves to what is expected."""
    place = sample.prompt.rfind(begins)
    if place < 0:
        return sample
    start = place + len(begins)
    expected = (sample.prompt[start:] + sample.expected).partition(ends)[0]
    return sample.model_copy(update={"prompt": sample.prompt[:start], "expected": expected})


def _read(row: Row, source: DataSource) -> Utterance:
    """The prompt of a row of any method."""
    try:
        return read_prompt(row, find_layout(row, source, "grpo"))
    except TrainerError as error:
        try:
            return read_prompt(row, find_layout(row, source, "dpo"))
        except TrainerError:
            raise error from None


def load_generator(weights: Weights, config: ServeConfig, dataset: Dataset, tell: Tell) -> ModelGenerator:
    """Load weights and tokenizer onto the device.

    On a GPU the base model of an adapter is held as it was trained, in 4 bits if it was; on CPU in the precision of its files.

    Raises :class:`TrainerError`: ConfigurationError without a GPU that was asked for, ModelError for weights that cannot be loaded.
    """
    runs_code = config.run.spec.model.trust_remote_code
    device = find_device(config.device, 0)
    tell("the weights into memory")
    options: dict[str, Any] = {"dtype": "auto", "trust_remote_code": runs_code}
    if device.kind == "gpu":
        options["device_map"] = {"": torch.cuda.current_device()}
    else:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or available_cpus()))
    sees = has_vision(read_config(weights.base_dir or weights.directory))
    if device.kind == "gpu" and weights.base_dir is not None and weights.pinned.quantization == "4bit":
        held: Dtype = "bfloat16" if device.has_bfloat16 else "float16"
        formats = Formats(held, held, "no", tf32=False, is_quantized=True)
        options |= {"dtype": DTYPES[held], "quantization_config": four_bits(formats, "images" if sees else "text")}
    model = load_weights(weights.base_dir, weights.directory, "model.uri", **options)
    model.eval()
    directory = weights.directory
    tokenizer = load_processor(directory, runs_code=runs_code).tokenizer if sees else load_tokenizer(directory, runs_code=runs_code)
    return ModelGenerator(model, tokenizer, dataset)
