"""The tiny model of the demo and the tests: deterministic, loadable, trainable; and the data files that stand beside it."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from examples.tiny_model import DEFAULT_DATA, END, PAD, DataError, write_model

REPOSITORY = Path(__file__).parents[2]
DATASETS = REPOSITORY / "tests" / "data" / "datasets"
CHAT = [{"role": "user", "content": "What is a pod?"}, {"role": "assistant", "content": "The smallest unit that Kubernetes starts."}]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory of size ``test``, seed 42."""
    path = tmp_path_factory.mktemp("model")
    write_model(path, params="test")
    return path


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def count_parameters(directory: Path) -> int:
    with safe_open(directory / "model.safetensors", framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 - not a mapping


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_same_arguments_give_the_same_bytes_in_another_process(model_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "examples" / "tiny_model.py"), str(tmp_path / "again"), "--params", "test"]
    subprocess.run(command, check=True, cwd=tmp_path)

    assert digests(tmp_path / "again") == digests(model_dir)


def test_writing_again_replaces_what_was_there(model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, params="test", seed=1)
    write_model(tmp_path, params="test")

    assert digests(tmp_path) == digests(model_dir)


def test_the_seed_changes_the_weights_alone(model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, params="test", seed=43)

    first, second = digests(model_dir), digests(tmp_path)
    assert {name for name in first if first[name] != second[name]} == {"model.safetensors"}


def test_the_directory_is_complete_and_readable_by_another_user(model_dir: Path) -> None:
    assert sorted(path.name for path in model_dir.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert {path.stat().st_mode & 0o777 for path in model_dir.iterdir()} == {0o644}


def test_sizes_are_those_promised(model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, params="small")

    assert 5_000_000 <= count_parameters(tmp_path) <= 8_000_000
    assert count_parameters(model_dir) < 1_000_000
    assert json.loads((tmp_path / "config.json").read_bytes())["vocab_size"] == 4096


def test_transformers_loads_every_weight_and_the_first_loss_is_near_chance(model_dir: Path) -> None:
    import torch  # noqa: PLC0415 - takes seconds
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - takes seconds

    model, report = AutoModelForCausalLM.from_pretrained(model_dir, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    text = tokenizer.apply_chat_template(rows_of(DEFAULT_DATA)[0]["messages"], tokenize=False)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()

    assert {name: keys for name, keys in report.items() if keys} == {}
    assert model.config.vocab_size == len(tokenizer)
    assert loss == pytest.approx(math.log(len(tokenizer)) + 0.5, abs=0.5)


def test_the_template_ends_each_turn_with_eos_and_padding_is_another_token(model_dir: Path) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    ids = tokenizer.apply_chat_template(CHAT, return_dict=False)
    prompt = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, tokenize=False)

    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    assert ids.count(tokenizer.eos_token_id) == len(CHAT)
    assert tokenizer.pad_token_id not in ids
    assert tokenizer.apply_chat_template(CHAT, tokenize=False).startswith(prompt)
    assert tokenizer.decode(tokenizer("naïve ☸ \t tokens").input_ids) == "naïve ☸ \t tokens"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken_line.jsonl", "line 4: not a row like"),
        ("columns.jsonl", "line 1: not a row like"),
        ("empty.jsonl", "no rows"),
    ],
)
def test_data_that_cannot_be_used_is_named_with_its_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_model(tmp_path / "model", data=DATASETS / name)

    assert not (tmp_path / "model").exists()


def test_the_command_line_ends_with_a_sentence_for_a_missing_file(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "examples" / "tiny_model.py"), str(tmp_path / "model"), "--data", "missing.jsonl"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr == "error: [Errno 2] No such file or directory: 'missing.jsonl'\n"


def test_the_instruction_set_is_valid_and_without_duplicates() -> None:
    """At least 300 rows for the demo; the evaluation file shares no answer with it."""
    train, held_out = rows_of(DEFAULT_DATA), rows_of(DEFAULT_DATA.with_suffix(".eval.jsonl"))
    answers = [row["messages"][-1]["content"] for row in train + held_out]
    conversations = [json.dumps(row) for row in train + held_out]

    assert (len(train), len(held_out)) == (474, 40)
    assert len(set(answers)) == len(answers)
    assert len(set(conversations)) == len(conversations)
    for row in train + held_out:
        roles = [turn["role"] for turn in row["messages"]]
        dialogue = roles[1:] if roles[0] == "system" else roles
        assert dialogue == ["user", "assistant"] * (len(dialogue) // 2)
        assert dialogue
        assert all(turn["content"].strip() == turn["content"] != "" for turn in row["messages"])
