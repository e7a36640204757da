"""Vision-language models: what is trained, that it resumes exactly, and that anybody can load the result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from datasets import load_from_disk
from PIL import Image
from safetensors.numpy import load_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from finetune_api.strategies import STRATEGIES
from finetune_trainer.outputs import probe
from finetune_trainer.outputs.check import check
from finetune_trainer.outputs.make import make
from finetune_trainer.outputs.plan import OutputsPlan
from finetune_trainer.prepare.processor import load_processor
from finetune_trainer.prepare.run import prepare
from finetune_trainer.protocol import Facts, PreparedSummary, PreparePlan
from finetune_trainer.vision import is_vision
from finetune_trainer.worker.sight import SightCollator, SightRows, load_images
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import BASE, ROOT, Result, Run, evaluations, failure, steps_of, stop_at, stopped_step, weights
from tests.support.jobs import merge
from tests.support.matrix import ADAPTERS, ENABLED, LANGUAGE_OF_VLM, Cell, record

STEPS = 5


class Sight(NamedTuple):
    """A tiny vision-language model, and a ZIP of rows for it."""

    model: Path
    rows: Path


class Case(NamedTuple):
    """One combination."""

    kind: str
    adapter: str
    ranks: int = 1
    strategy: str = "none"

    def __str__(self) -> str:
        return f"{self.kind}-{self.adapter}-{self.strategy}-{self.ranks}"


FEW = [Case("VLM", "full"), Case("LLM", "full"), Case("LLM", "lora"), Case("VLM", "lora", 2, "ddp")]
ALL = [
    Case(kind, adapter, ranks, strategy) for kind in ("LLM", "VLM") for adapter in ADAPTERS for ranks, strategy in ((1, "none"), (2, "ddp"))
]
SHARDED = [
    Case(kind, adapter, 2, strategy)
    for kind in ("LLM", "VLM")
    for adapter in ADAPTERS
    for strategy in STRATEGIES
    if strategy not in ("none", "ddp") and (adapter, strategy) != ("qlora", "fsdp")
]
TRIED: Final = {"VLM": "VLM", "LLM": LANGUAGE_OF_VLM}
"""Value of ``model.type`` -> column of the table; the base is a vision-language model always."""


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory) -> Sight:
    """Made by the script that the example uses."""
    directory = tmp_path_factory.mktemp("sight")
    made = Sight(directory / "tiny", directory / "shapes.zip")
    subprocess.run([sys.executable, ROOT / "examples/tiny_vlm.py", made.model, "--images", made.rows, "--rows", "48"], check=True)
    return made


def job(make_run: MakeRun, sight: Sight, case: Case, change: Mapping[str, Any] | None = None) -> Run:
    """A run of a case."""
    spec = {
        "model": {"type": case.kind},
        "dataset": {"uri": "pvc://rows/shapes.zip", "format": "vlm-zip", "evalRatio": 0.1, "maxSamples": 0},
        "adapter": {"rank": 4, "targetModules": ["q_proj", "v_proj"]},
        "training": {"maxSteps": STEPS, "gradAccumSteps": 1, "maxSeqLength": 128, "learningRate": 1e-3},
        "evaluation": {"strategy": "steps", "steps": 2, "batchSize": 2},
        "distributed": {"strategy": case.strategy},
    }
    return make_run(merge(merge(spec, ADAPTERS[case.adapter]), change or {}), model_dir=sight.model, data=sight.rows)


def facts_of(result: Result) -> dict[str, str]:
    """Everything rank 0 found out."""
    return {name: value for message in result.of(Facts) for name, value in message.facts.items()}


@pytest.mark.matrix
@pytest.mark.parametrize("case", ALL if ENABLED else FEW, ids=str)
def test_resumed_equals_never_interrupted(make_run: MakeRun, sight: Sight, case: Case) -> None:
    """R-07, B-11, AC-34: images, texts and both in one batch; and which part has moved."""
    whole = job(make_run, sight, case).attempt(case.ranks)
    assert whole.codes == [0] * case.ranks, whole.log
    run = job(make_run, sight, case)
    first = run.attempt(case.ranks, hook=stop_at(2))
    second = run.attempt(case.ranks, resume=stopped_step(first))
    assert second.codes == [0] * case.ranks, second.log
    assert steps_of(first, second) == steps_of(whole)
    assert evaluations(first, second) == evaluations(whole)
    assert weights(second) == weights(whole)
    facts = facts_of(whole)
    assert facts["modelType"] == case.kind
    assert facts["trainableComponents"] == ("language" if case.kind == "LLM" else "language, vision")
    assert moved_parts(whole, sight) == set(facts["trainableComponents"].split(", "))
    record(Cell("sft", case.adapter, case.strategy, case.ranks, TRIED[case.kind]), "exact")


@pytest.mark.matrix
@pytest.mark.skipif(not ENABLED, reason="belongs to make matrix")
@pytest.mark.parametrize("case", SHARDED, ids=str)
def test_shared_out_and_resumed_equals_never_interrupted(make_sharded: MakeRun, sight: Sight, case: Case) -> None:
    """R-07, R-14: the same where the ranks share weights, gradients or optimizer among them; some batches of a rank have no image."""
    whole = job(make_sharded, sight, case).attempt(case.ranks)
    assert whole.codes == [0] * case.ranks, whole.log
    run = job(make_sharded, sight, case)
    first = run.attempt(case.ranks, hook=stop_at(2))
    second = run.attempt(case.ranks, resume=stopped_step(first))
    assert second.codes == [0] * case.ranks, second.log
    assert steps_of(first, second) == steps_of(whole)
    assert weights(second) == weights(whole)
    assert moved_parts(whole, sight) == set(facts_of(whole)["trainableComponents"].split(", "))
    record(Cell("sft", case.adapter, case.strategy, case.ranks, TRIED[case.kind]), "exact")


@pytest.mark.matrix
@pytest.mark.skipif(not ENABLED, reason="belongs to make matrix")
def test_the_older_family(make_run: MakeRun, sight: Sight, tmp_path: Path) -> None:
    """C-08: Qwen2-VL, whose vision part is built otherwise, with the same processor."""
    model = older_family(sight, tmp_path / "qwen2-vl")
    case = Case("VLM", "lora")
    whole = job(make_run, Sight(model, sight.rows), case, {"dataset": {"uri": "pvc://rows/older.zip"}}).attempt()
    assert whole.codes == [0], whole.log
    assert facts_of(whole)["trainableComponents"] == "language, vision"
    assert moved_parts(whole, sight) == {"language", "vision"}


def older_family(sight: Sight, directory: Path) -> Path:
    """A tiny Qwen2-VL with the tokenizer and the processor of the other."""
    config = json.loads((sight.model / "config.json").read_text())
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "in_channels": 3}
    text = {name: value for name, value in config["text_config"].items() if name != "model_type"}
    tokens = {name: value for name, value in config.items() if name.endswith("_token_id")}
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        words = (sight.model / name).read_text().replace("Qwen2_5_VLProcessor", "Qwen2VLProcessor")
        (directory / name).write_text(words)
    (directory / "chat_template.jinja").write_text((sight.model / "chat_template.jinja").read_text())
    return directory


def moved_parts(result: Result, sight: Sight) -> set[str]:
    """Parts of the model whose weights are others than those of the base, or that an adapter changes."""
    assert result.final is not None
    adapter = result.final / "adapter_model.safetensors"
    if adapter.is_file():
        moved = [
            name.removeprefix("base_model.model.") for name, values in load_file(adapter).items() if ".lora_B." in name and values.any()
        ]
    else:
        base, final = load_file(sight.model / "model.safetensors"), load_file(result.final / "model.safetensors")
        assert base.keys() == final.keys()
        moved = [name for name, values in final.items() if (values != base[name]).any()]
    return {"vision" if is_vision(name) else "language" for name in moved}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about what PEFT asks it
def test_anybody_can_load_the_result(make_run: MakeRun, sight: Sight, tmp_path: Path) -> None:
    """W-01, B-11: adapter and merged model, with their processor, give the very logits, for texts and for an image."""
    result = job(make_run, sight, Case("VLM", "lora"), {"training": {"maxSteps": 2}}).attempt()
    assert result.codes == [0], result.log
    assert result.final is not None
    plan = OutputsPlan(
        step="make",
        name="sight",
        base_dir=sight.model,
        final_dir=result.final,
        model_dir=tmp_path / "merged",
        gguf_dir=tmp_path,
        merged_wanted=True,
        reference=tmp_path / "reference.npz",
        result=tmp_path / "result.json",
    )
    make(plan)
    assert check(plan).deltas["merged"] < 1e-4
    probe.gradient().save(tmp_path / "image.png")
    case = {
        "reference": str(plan.reference),
        "image": str(tmp_path / "image.png"),
        "texts": [*probe.TEXTS, probe.TEXTS[0]],
        "base": str(sight.model),
        "final": str(result.final),
        "merged": str(plan.model_dir),
    }
    (tmp_path / "case.json").write_text(json.dumps(case))
    command = [sys.executable, "-I", str(ROOT / "tests/support/foreign_sight_reader.py"), str(tmp_path / "case.json")]
    read = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert read.returncode == 0, read.stderr
    deltas = json.loads(read.stdout)
    assert deltas["adapter"] == 0.0
    assert deltas["merged"] < 1e-4


def prepared(
    tmp_path: Path, sight: Sight, rows: list[dict[str, Any]], change: Mapping[str, Any]
) -> tuple[PreparedSummary, list[dict[str, Any]]]:
    """Prepare rows that show one picture of 112 x 112 pixels (16 tokens) and one of 56 x 56 (4 tokens)."""
    for name, side in (("big", 112), ("small", 56)):
        Image.new("RGB", (side, side), (200, 30, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = Run.__new__(Run)
    run.spec, run.store = merge(BASE, merge({"dataset": {"maxSamples": 0}}, change)), tmp_path
    plan = PreparePlan(
        run_config=run.write_config(1, tmp_path / "config.json"),
        tokenizer_dir=sight.model,
        train_files=[[tmp_path / "train.jsonl"]],
        eval_files=[],
        output_dir=tmp_path / "prepared",
        dataset_digest="d",
        has_vision=True,
    )
    summary = prepare(plan, lambda _rows: None)
    return summary, list(load_from_disk(tmp_path / "prepared/train"))


def ask(*images: str, words: str = "What is it?", answer: str = "A square.") -> dict[str, Any]:
    """A question about images."""
    parts = [*({"type": "image", "image": f"{name}.png"} for name in images), {"type": "text", "text": words}]
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}


def test_rows_become_tokens(tmp_path: Path, sight: Sight) -> None:
    """E-07, F-07: an image is as many tokens as its size asks for, none of which is learnt or cut."""
    rows = [ask("big"), ask("small", "big", "small"), ask(words="Long. " * 200), ask("small", answer="Long. " * 200), ask(*["big"] * 9)]
    summary, found = prepared(tmp_path, sight, rows, {"training": {"maxSeqLength": 128}})
    processor = load_processor(sight.model)
    (image,) = processor.image_token_ids
    assert [row["input_ids"].count(image) for row in found] == [16, 24, 0, 4]
    assert all(label == -100 for row in found for token, label in zip(row["input_ids"], row["labels"], strict=True) if token == image)
    assert [row["images"] for row in found] == [[0], [1, 0, 1], [], [1]]
    assert [len(row["input_ids"]) for row in found][2:] == [128, 128]
    assert "1 rows have nothing left to learn within 128 tokens, or an image that does not fit in" in summary.warnings["RowsDropped"]
    assert summary.images == 2
    assert [prompt.prompt.count("<|image_pad|>") for prompt in summary.prompts] == [0]


def test_only_answers_are_learnt(tmp_path: Path, sight: Sight) -> None:
    """E-02: the answer's place is found behind images that have grown; imageMaxPixels makes them smaller."""
    change = {"dataset": {"assistantOnlyLoss": True, "imageMaxPixels": 3136}}
    _, found = prepared(tmp_path, sight, [ask("big", "small", answer="A red square.")], change)
    processor = load_processor(sight.model)
    learnt = [label for label in found[0]["labels"] if label != -100]
    assert processor.tokenizer.decode(learnt) == "A red square.<|im_end|>\n"
    (image,) = processor.image_token_ids
    assert found[0]["input_ids"].count(image) == 8


def test_batches_are_the_processors_own(tmp_path: Path, sight: Sight) -> None:
    """Pixels, shapes and kinds of tokens are those the library's processor gives for the same rows; a blank image adds nothing."""
    _, found = prepared(tmp_path, sight, [ask("big"), ask("small", "big"), ask()], {})
    rows = SightRows(load_from_disk(tmp_path / "prepared/train"), load_images(tmp_path / "prepared"))
    processor = load_processor(sight.model)
    batch = SightCollator(processor, always_sees=True)(rows.__getitems__([0, 1, 2]))
    texts = processor.tokenizer.batch_decode([row["input_ids"] for row in found])
    single = [re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", text) for text in texts]
    images = [Image.open(tmp_path / f"{name}.png") for name in ("big", "small", "big")]
    own = processor(text=single, images=images, padding=True, padding_side="right", return_tensors="pt")
    assert own.keys() | {"labels"} == batch.keys()
    assert all(torch.equal(own[name], batch[name]) for name in own)
    blind = SightCollator(processor, always_sees=False)(rows.__getitems__([2]))
    assert "pixel_values" not in blind
    seeing = SightCollator(processor, always_sees=True)(rows.__getitems__([2]))
    assert len(seeing["labels"]) == 2
    assert (seeing["labels"][1] == -100).all()


def test_refusals(make_run: MakeRun, sight: Sight) -> None:
    """OP-17: names that only the vision part has are not for type LLM."""
    change = {"adapter": {"targetModules": ["qkv"], "allowCustomModules": True}}
    result = job(make_run, sight, Case("LLM", "lora"), change).attempt()
    assert result.codes == [42], result.log
    assert "the model has no module named qkv" in failure(result).message
