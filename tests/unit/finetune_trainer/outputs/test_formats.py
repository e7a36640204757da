"""Every output loads again in a fresh process without our code, with the same tokens and logits; docs state how much they differ."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from finetune_trainer.outputs.check import check
from finetune_trainer.outputs.make import make
from finetune_trainer.outputs.plan import OutputsPlan
from finetune_trainer.outputs.probe import TEXTS
from tests.support.tiny_outputs import CORPUS, TinyCase, all_cases

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft uses names that transformers has renamed
ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs/reference/outputs.md"
FORMS = ("adapter", "merged", "F16", "BF16", "Q8_0", "Q4_0")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ROOM = 3.0
"""Other processors add up in another order: a figure may be so many times the stated one."""
FLOOR = 1e-5


def plan_of(case: TinyCase, directory: Path) -> OutputsPlan:
    return OutputsPlan(
        step="make",
        name="tiny",
        base_dir=case.base,
        final_dir=case.final,
        model_dir=directory / "merged",
        gguf_dir=directory / "gguf",
        gguf=["F16", "BF16", "Q8_0", "Q4_0"],
        merged_wanted=True,
        reference=directory / "reference.npz",
        result=directory / "result.json",
    )


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OutputsPlan]:
    """All outputs of all cases, made once."""
    directory = tmp_path_factory.mktemp("outputs")
    made = {}
    for number, case in enumerate(all_cases(directory / "models")):
        target = directory / str(number)
        target.mkdir()
        made[case.name] = plan_of(case, target)
        make(made[case.name])
    return made


@pytest.fixture(scope="module")
def measured(plans: Mapping[str, OutputsPlan], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, float]]]:
    """What a foreign reader finds."""
    cases = [
        {
            "name": name,
            "reference": str(plan.reference),
            "texts": TEXTS,
            "base": str(plan.base_dir),
            "final": str(plan.final_dir),
            "merged": str(plan.model_dir),
            "gguf": {kind: str(plan.gguf_file(kind)) for kind in plan.gguf},
        }
        for name, plan in plans.items()
    ]
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    file.write_text(json.dumps(cases))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "tests/support/foreign_reader.py", file], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, dict[str, float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_form_reads_the_same_text(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """W-01 W-04: the tokenizer of each form gives the same tokens as the one that was trained with."""
    assert {(case, form) for case, forms in measured.items() for form, found in forms.items() if not found["tokens"]} == set()


def test_every_form_answers_as_the_docs_say(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """AC-26: merged weights need no adapter. The table in docs/reference/outputs.md is measured; FINETUNE_WRITE_TABLES=1 writes it."""
    table = render(measured)
    text = PAGE.read_text()
    if os.environ.get("FINETUNE_WRITE_TABLES"):
        PAGE.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n{table}\n{END}{text.partition(END)[2]}")
        text = PAGE.read_text()
    stated = parse(text.partition(BEGIN)[2].partition(END)[0])
    assert {
        (case, form): (found["delta"], stated[case, form])
        for case, forms in measured.items()
        for form, found in forms.items()
        if found["delta"] > max(FLOOR, ROOM * stated[case, form])
    } == {}


def test_our_own_check_agrees(plans: Mapping[str, OutputsPlan]) -> None:
    """What the export's second process measures is what a foreign reader measures, and it passes."""
    deltas = check(plans["llama"].model_copy(update={"step": "check"})).deltas
    assert set(deltas) == set(FORMS) - {"adapter"}
    assert deltas["merged"] < 1e-4 < deltas["Q4_0"]


def test_special_tokens_and_template_are_in_the_file(plans: Mapping[str, OutputsPlan]) -> None:
    """llama.cpp reads them from there."""
    fields = GGUFReader(plans["qwen2"].gguf_file("Q8_0")).fields
    read = {name: field.contents() for name, field in fields.items() if name.startswith(("general", "tokenizer"))}
    tokens = read["tokenizer.ggml.tokens"]
    assert read["general.architecture"] == "qwen2"
    assert read["tokenizer.ggml.pre"] == "qwen2"
    assert tokens[read["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert "im_start" in read["tokenizer.chat_template"]
    assert read["tokenizer.ggml.add_bos_token"] is False


def test_texts_of_other_scripts_are_split_alike(plans: Mapping[str, OutputsPlan]) -> None:
    """Apostrophes, umlauts, Chinese, digits, blank lines: through the tokenizer rebuilt from the file."""
    for name, plan in plans.items():
        original = AutoTokenizer.from_pretrained(plan.final_dir)
        rebuilt = AutoTokenizer.from_pretrained(plan.gguf_dir, gguf_file=plan.gguf_file("F16").name)
        texts = CORPUS[:3] if "SentencePiece" in name else CORPUS
        own = [original(text, add_special_tokens=False).input_ids for text in texts]
        assert [rebuilt(text, add_special_tokens=False).input_ids for text in texts] == own, name


def render(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    head = ["| model | " + " | ".join(FORMS) + " |", "|---" * (len(FORMS) + 1) + "|"]
    rows = [f"| {case} | " + " | ".join(f"{forms[form]['delta']:.1e}" for form in FORMS) + " |" for case, forms in measured.items()]
    return "\n".join([*head, *rows])


def parse(table: str) -> dict[tuple[str, str], float]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if re.search(r"\de[-+]", line)]
    return {(row[0], form): float(value) for row in rows for form, value in zip(FORMS, row[1:], strict=True)}
