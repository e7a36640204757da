"""Beside plain TRL: the same tokens and labels from the same rows, the same losses from the same batches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from finetune_trainer.worker.order import Order
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import DATA, Zygote

STEPS = 20
TRAINING = {"maxSteps": STEPS, "learningRate": 1e-3, "lrScheduler": "linear", "warmupRatio": 0, "weightDecay": 0.01}
CHATS = [json.loads(line)["messages"] for line in DATA.read_text().splitlines()]
FILES: dict[str, list[Mapping[str, Any]]] = {
    "messages": [{"messages": chat} for chat in CHATS[:96]],
    "pairs": [{"prompt": chat[-2]["content"] + " ", "completion": chat[-1]["content"]} for chat in CHATS],
    "pairs-as-turns": [
        {
            "prompt": [{"role": "user", "content": chat[-2]["content"] + " "}],
            "completion": [{"role": "assistant", "content": chat[-1]["content"]}],
        }
        for chat in CHATS
    ],
    "conversational-pairs": [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in CHATS],
}
AS_THEY_ARE: dict[str, dict[str, Any]] = {"pairs": {"promptTemplate": "{prompt}"}}
"""Without a template of the job, a model with a chat template gets texts as turns."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The rows of each format on disk."""
    directory = tmp_path_factory.mktemp("data")
    for name, rows in FILES.items():
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: directory / f"{name}.jsonl" for name in FILES}


@pytest.fixture(scope="module")
def stock(zygote: Zygote, model: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What plain TRL makes of each file; it trains on the first, in the order our runs have."""
    order = Order(96, 4, 42, reshuffle=False).epoch_rows(0).tolist()
    jobs = [{"model": str(model), "data": str(file), "order": order, "steps": STEPS * (name == "messages")} for name, file in files.items()]
    directory = tmp_path_factory.mktemp("trl")
    (directory / "jobs.json").write_text(json.dumps(jobs))
    environment = {"JOBS": str(directory / "jobs.json"), "OUT": str(directory / "out.json")}
    pid = zygote.spawn(environment, directory / "log", module="tests.exactness.plain_trl")
    assert zygote.wait(pid, 300) == 0, (directory / "log").read_text()
    return dict(zip(files, json.loads((directory / "out.json").read_text()), strict=True))


def test_losses_of_full_fine_tuning(make_run: MakeRun, stock: dict[str, dict[str, Any]], files: dict[str, Path]) -> None:
    """Per-step loss and gradient norm over 20 steps are TRL's own."""
    spec = {"adapter": {"type": "full"}, "training": TRAINING, "dataset": {"uri": "configmap://a/messages"}}
    ours = make_run(spec, data=files["messages"]).attempt()
    assert ours.codes == [0], ours.log
    assert [row["loss"] for row in ours.metrics.values()] == pytest.approx(stock["messages"]["losses"], abs=1e-5)
    assert [row["grad_norm"] for row in ours.metrics.values()] == pytest.approx(stock["messages"]["norms"], rel=1e-4)


@pytest.mark.parametrize("kind", FILES)
def test_rows(make_run: MakeRun, stock: dict[str, dict[str, Any]], files: dict[str, Path], kind: str) -> None:
    """Tokens and labels: templates, masked prompts, ends and cuts are TRL's own (E-02, E-05)."""
    run = make_run({"dataset": {"uri": f"configmap://a/{kind}", "maxSamples": 0, **AS_THEY_ARE.get(kind, {})}}, data=files[kind])
    assert load_from_disk(run.prepared / "train").to_list() == stock[kind]["rows"]


def test_texts_become_turns(make_run: MakeRun, stock: dict[str, dict[str, Any]], files: dict[str, Path]) -> None:
    """Prompt and answer in columns are one question and one answer to a model that has a chat template (E-10)."""
    run = make_run({"dataset": {"uri": "configmap://a/pairs", "maxSamples": 0}}, data=files["pairs"])
    assert load_from_disk(run.prepared / "train").to_list() == stock["pairs-as-turns"]["rows"]
