"""Tiny models of every family that can become GGUF, each with an adapter that changes its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from finetune_trainer.outputs.splits import REGEXES

CORPUS = [
    "The quick brown fox jumps over the lazy dog. 1234567 times!",
    "Question: how many pods does a job with 3 replicas have?\nAnswer: three.",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "It's Größe and naïve façade, 你好 world; I'll see you at 10:45.",
    "kubectl get pods -n default --watch\n\n\n  NAME   READY   STATUS",
]
CHAT_TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class TinyCase:
    """One model with its adapter on disk."""

    name: str
    base: Path
    final: Path


def byte_level(split: str) -> Tokenizer:
    """Byte-level BPE that splits text the way of ``split``."""
    tokenizer = Tokenizer(models.BPE())
    regex = next((text for text, name in REGEXES.items() if name == split), None)
    if regex is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(regex), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """BPE with byte fallback over words that begin with the mark ▁, as Llama 2 has it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS[:3], trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:4]
    return Tokenizer.from_str(json.dumps(document))


def make_case(directory: Path, name: str, config: Any, dtype: torch.dtype, tokenizer: Tokenizer) -> TinyCase:
    """Write base model and adapter; weights are random, the adapter's too, so that it matters."""
    torch.manual_seed(7)
    base, final = directory / name / "base", directory / name / "final"
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 1.5 / weight.shape[1] ** 0.5)
    model.save_pretrained(base)
    names = set(tokenizer.get_vocab())
    end = "<|im_end|>"
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token="<|endoftext|>" if "<|endoftext|>" in names else end, model_max_length=512
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for weight_name, weight in adapted.named_parameters():
            if "lora_B" in weight_name:
                weight.normal_(0, 0.05)
    adapted.save_pretrained(final)
    wrapped.save_pretrained(final)
    return TinyCase(name, base, final)


def all_cases(directory: Path) -> list[TinyCase]:
    """Every family, both precisions, every kind of tokenizer."""
    gpt2, llama3, qwen, pieces = byte_level("gpt-2"), byte_level("llama-bpe"), byte_level("qwen2"), sentence_piece()

    def rows(tokenizer: Tokenizer) -> int:
        return -(-tokenizer.get_vocab_size() // 64) * 64

    llama = LlamaConfig(**SIZES, vocab_size=rows(gpt2), tie_word_embeddings=False)
    return [
        make_case(directory, "llama", llama, torch.float32, gpt2),
        make_case(directory, "llama, 16 bits", LlamaConfig(**SIZES, vocab_size=rows(llama3), attention_bias=True), torch.bfloat16, llama3),
        make_case(directory, "llama, SentencePiece", LlamaConfig(**SIZES, vocab_size=rows(pieces)), torch.float32, pieces),
        make_case(directory, "qwen2", Qwen2Config(**SIZES, vocab_size=rows(qwen), tie_word_embeddings=True), torch.float32, qwen),
        # transformers' reader takes 128 for the width of Qwen3's heads whatever the file says
        make_case(directory, "qwen3", Qwen3Config(**SIZES, head_dim=128, vocab_size=rows(qwen)), torch.float32, qwen),
    ]
