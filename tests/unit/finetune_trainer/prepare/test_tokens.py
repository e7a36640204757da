"""Tokens and labels per format, and what each limit cuts (E-28, F-07, F-09, F-10, AC-40)."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.encoded import IGNORED, Encoded
from finetune_trainer.prepare.examples import Chat, Example, Pair, Text, read_example
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.layout import find_layout
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import Row
from finetune_trainer.prepare.tokens import Encoder, Limits, common_prefix, cut_left

WIDE = Limits(sequence=1000, prompt=1000)
TURNS = [{"role": "user", "content": "What is a pod?"}, {"role": "assistant", "content": "A group of containers."}]


def encode(tokenizer: PreTrainedTokenizerBase, example: Example, limits: Limits = WIDE) -> Encoded:
    """Encode one example."""
    ((encoded,),) = Encoder(tokenizer, limits).encode([("train.jsonl, line 1", example)])
    assert isinstance(encoded, Encoded)
    return encoded


def test_text_is_trained_whole_and_ends(tokenizer: PreTrainedTokenizerBase) -> None:
    """Every token counts; the end token is added once."""
    for text in ("one two", f"one two{tokenizer.eos_token}"):
        row = encode(tokenizer, Text(text))
        assert tokenizer.decode(row.input_ids) == f"one two{tokenizer.eos_token}"
        assert row.labels == row.input_ids


def test_chats_go_through_the_template_and_are_trained_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    """As TRL does for messages."""
    row = encode(tokenizer, Chat(TURNS))
    assert tokenizer.decode(row.input_ids) == tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert row.labels == row.input_ids


def test_only_the_completion_is_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    """Prompt tokens are masked, the end token is learnt."""
    row = encode(tokenizer, Pair("Question: what? Answer:", " a pod"))
    learnt = [token for token in row.labels if token != IGNORED]
    assert tokenizer.decode(learnt) == f" a pod{tokenizer.eos_token}"
    assert row.input_ids[len(row.input_ids) - len(learnt) :] == learnt


def test_conversational_pairs(tokenizer: PreTrainedTokenizerBase) -> None:
    """The generation prompt belongs to the prompt."""
    row = encode(tokenizer, Pair(TURNS[:1], TURNS[1:]))
    learnt = tokenizer.decode([token for token in row.labels if token != IGNORED])
    assert learnt.startswith("A group of containers.")


def test_a_batch_gives_what_single_rows_give(tokenizer: PreTrainedTokenizerBase) -> None:
    """The order of rows and formats in a batch changes nothing."""
    examples: list[Example] = [Text("one"), Chat(TURNS), Pair("a", "b"), Pair(TURNS[:1], TURNS[1:]), Text("two")]
    together = Encoder(tokenizer, WIDE).encode([("", example) for example in examples])
    assert together == [[encode(tokenizer, example)] for example in examples]


def test_long_prompts_are_cut_from_the_left(tokenizer: PreTrainedTokenizerBase) -> None:
    """AC-40: a prompt of more than the limit keeps its last tokens, and is counted."""
    prompt, completion = "word " * 300, "the answer"
    whole = encode(tokenizer, Pair(prompt, completion))
    cut = encode(tokenizer, Pair(prompt, completion), Limits(sequence=1000, prompt=20))
    masked = [token for token, label in zip(cut.input_ids, cut.labels, strict=True) if label == IGNORED]
    assert len(masked) == 20
    assert cut.prompt_cut
    assert not whole.prompt_cut
    assert cut.input_ids == whole.input_ids[-len(cut.input_ids) :]


LONG = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "word " * 1000}, {"role": "assistant", "content": "A pod."}]
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


@pytest.mark.parametrize(
    "row",
    [{"messages": LONG}, {"conversations": [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in LONG]}],
    ids=["messages", "sharegpt"],
)
def test_long_prompts_of_conversations_are_cut_from_the_left(tokenizer: PreTrainedTokenizerBase, row: dict[str, object]) -> None:
    """AC-40, E-12, F-09: more than 2048 tokens before the last answer; the answer stays whole, and the row is counted."""
    found = Row("train.jsonl, line 1", row)
    layout = find_layout(found, DataSource(uri="configmap://rows/train.jsonl"), "sft")
    example = read_example(convert(found, layout, "sft"), "tokens")
    whole = encode(tokenizer, example, Limits(sequence=9000, prompt=8999))
    cut = encode(tokenizer, example, Limits(sequence=9000, prompt=2048))
    answer = tokenizer.apply_chat_template(LONG, tokenize=False).split("word " * 1000)[1]
    assert tokenizer.decode(whole.input_ids[-(len(cut.input_ids) - 2048) :]) in answer
    assert cut.input_ids == whole.input_ids[-len(cut.input_ids) :]
    assert (cut.prompt_cut, whole.prompt_cut) == (True, False)
    assert cut.labels == cut.input_ids
    assert not cut.is_cut


def test_long_answers_of_conversations_are_cut_from_the_right(tokenizer: PreTrainedTokenizerBase) -> None:
    """F-10: the last answer alone; what comes before it is untouched, and what is not trained stays so."""
    chat = [*TURNS, {"role": "user", "content": "And a node?"}, {"role": "assistant", "content": "word " * 300}]
    whole = encode(tokenizer, Chat(chat, trained=frozenset({3})))
    cut = encode(tokenizer, Chat(chat, trained=frozenset({3})), Limits(sequence=1000, prompt=999, completion=7))
    assert cut.input_ids == whole.input_ids[: len(cut.input_ids)]
    assert [label for label in cut.labels if label != IGNORED] == cut.input_ids[-7:]


def test_conversations_with_several_answers_to_learn_keep_them(tokenizer: PreTrainedTokenizerBase) -> None:
    """They are bounded by maxSeqLength alone: what comes before the last answer holds answers too."""
    chat = [*LONG, {"role": "user", "content": "And a node?"}, {"role": "assistant", "content": "word " * 300}]
    limits = Limits(sequence=9000, prompt=20, completion=7)
    assert encode(tokenizer, Chat(chat), limits) == encode(tokenizer, Chat(chat), Limits(sequence=9000, prompt=8999))


def test_a_limit_of_prompts_above_the_sequence_cuts_no_conversation(tokenizer: PreTrainedTokenizerBase) -> None:
    """The default of promptMaxLength is more than that of maxSeqLength: the beginning of a long conversation is what is trained."""
    row = encode(tokenizer, Chat(LONG), Limits(sequence=512, prompt=2048))
    assert row.input_ids == encode(tokenizer, Chat(LONG), Limits(sequence=9000, prompt=9000)).input_ids[:512]
    assert not row.prompt_cut


def test_conversations_without_an_answer_are_prompts(tokenizer: PreTrainedTokenizerBase) -> None:
    """One that begins with its only answer has no prompt."""
    limits = Limits(sequence=1000, prompt=20)
    assert len(encode(tokenizer, Chat(LONG[:2]), limits).input_ids) == 20
    answer = [{"role": "assistant", "content": "word " * 100}]
    assert encode(tokenizer, Chat(answer), limits) == encode(tokenizer, Chat(answer))


def test_long_completions_are_cut_from_the_right(tokenizer: PreTrainedTokenizerBase) -> None:
    """``contentMaxLength`` bounds the completion alone."""
    row = encode(tokenizer, Pair("prompt", "word " * 300), Limits(sequence=1000, prompt=1000, completion=7))
    assert sum(label != IGNORED for label in row.labels) == 7


def test_long_rows_are_cut_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    """The length before the cut is kept for the statistics (E-28)."""
    whole = encode(tokenizer, Text("word " * 300))
    row = encode(tokenizer, Text("word " * 300), Limits(sequence=16, prompt=16))
    assert row.input_ids == whole.input_ids[:16]
    assert row.is_cut
    assert row.length == whole.length == len(whole.input_ids)
    assert not whole.is_cut


def test_a_row_whose_completion_is_cut_away_teaches_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    """Nor does one of a single token: nothing comes before it."""
    assert not encode(tokenizer, Pair("word " * 300, "answer"), Limits(sequence=16, prompt=1000)).is_trainable
    assert not Encoded([5], [5], length=1).is_trainable
    assert Encoded([5, 6], [IGNORED, 6], length=2).is_trainable


def test_a_begin_token_stays_where_a_prompt_is_cut() -> None:
    """Models are trained with it; it counts as one of the tokens."""
    assert cut_left([1, 5, 6, 7, 8], 3, bos=1) == [1, 7, 8]
    assert cut_left([1, 5, 6, 7, 8], 1, bos=1) == [1]
    assert cut_left([4, 5, 6, 7, 8], 3, bos=1) == [6, 7, 8]
    assert cut_left([4, 5], 3, bos=None) == [4, 5]


def test_common_prefix() -> None:
    """Ends where both part or one ends."""
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0


def test_a_chat_without_a_template_is_refused(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field that would help is named."""
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(TrainerError, match=r"line 1: the row is a conversation .* set dataset\.chatTemplate, or model\.tokenizer\.uri"):
        encode(tokenizer, Chat(TURNS))


def test_a_row_the_template_refuses_is_named(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates raise for orders of roles they do not know."""
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TrainerError, match=r"train\.jsonl, line 1: the chat template refuses this conversation: roles must alternate"):
        encode(tokenizer, Chat(TURNS))


def test_a_row_the_template_refuses_can_be_left_out(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its batch are encoded."""
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    rejects = Rejects(skip=True)
    refused, text = Encoder(tokenizer, WIDE).encode([("line 1", Chat(TURNS)), ("line 2", Text("one"))], rejects)
    assert (refused, len(text)) == ([], 1)
    assert (rejects.count, rejects.first[:6]) == (1, "line 1")


PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS_REASONING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}{% endfor %}"
TALK = [TURNS[0], {"role": "assistant", "content": "A group of containers."}, {"role": "user", "content": "And a node?"}]
TALK += [{"role": "assistant", "content": "A machine."}]


@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (PLAIN, ["A group of containers.<|end|>\n", "A machine.<|end|>\n"]),
        (MARKED, ["A group of containers.<|end|>", "A machine.<|end|>"]),
        (DROPS_REASONING, ["A group of containers.<|end|>", "<think></think>A machine.<|end|>"]),
        (NO_GENERATION_PROMPT, ["A group of containers.{eos}", "A machine.{eos}"]),
    ],
    ids=["plain", "with generation markers", "drops reasoning", "without a generation prompt"],
)
def test_the_assistant_s_turns_alone_are_learnt(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, template: str, learnt: list[str]
) -> None:
    """Whatever template a model has: the turn and what ends it, nothing of the user's and no role."""
    monkeypatch.setattr(tokenizer, "chat_template", template)
    row = encode(tokenizer, Chat(TALK, trained=frozenset({1, 3})))
    parts = [part.replace("{eos}", str(tokenizer.eos_token)) for part in learnt]
    assert learnt_parts(tokenizer, row) == parts
    assert learnt_parts(tokenizer, encode(tokenizer, Chat(TALK, trained=frozenset({3})))) == parts[1:]


def learnt_parts(tokenizer: PreTrainedTokenizerBase, row: Encoded) -> list[str]:
    """The trained stretches of a row, as text."""
    parts: list[list[int]] = []
    before = IGNORED
    for label in row.labels:
        if label != IGNORED and before == IGNORED:
            parts.append([])
        if label != IGNORED:
            parts[-1].append(label)
        before = label
    return [tokenizer.decode(part) for part in parts]
