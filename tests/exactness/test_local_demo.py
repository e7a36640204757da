"""`make demo` where no cluster is possible: the same manifest as processes of this machine, with a directory as its store."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from finetune_cli.demo.scene import OUTPUT, Scene
from tests.exactness.harness import ROOT

VISIBLE = 0.8
"""A loss that has fallen to less than this share of what it was at first has visibly fallen."""


def test_the_demo_without_a_cluster(tmp_path: Path) -> None:
    """Trained with a pause in between, every step once; the loss falls, the result is where the demo says, and what is left out is said."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-m", "finetune_cli.demo", "--local"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = tmp_path / OUTPUT / "local" / "store"
    attempts = [
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in sorted(store.glob("**/metrics/attempt-*.jsonl"))
    ]
    assert len(attempts) == 2, "the pause lies between two attempts"
    losses = {row["step"]: row["loss"] for rows in attempts for row in rows}
    steps = Scene.of(tmp_path).spec.training.max_steps
    assert sorted(losses) == list(range(1, (steps or 0) + 1))
    assert sum(len(rows) for rows in attempts) == len(losses), "no step was trained twice"
    tenth = len(losses) // 10
    first, last = (statistics.fmean(losses[step] for step in part) for part in (sorted(losses)[:tenth], sorted(losses)[-tenth:]))
    assert last < VISIBLE * first
    assert list(store.glob("**/final/adapter_model.safetensors"))
    assert store.as_uri() in done.stdout
    assert "Left out" in done.stdout
    ask_result(tmp_path)


def ask_result(directory: Path) -> None:
    """V-01 V-03 V-07: the command that the demo names; the process it starts ends when it is told to."""
    ask: list[str | Path] = [
        sys.executable,
        "-m",
        "finetune_cli",
        "infer",
        "--dir",
        directory / OUTPUT / "local",
        "--sample",
        "1",
        "--max-new-tokens",
        "8",
        "--stop",
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(directory / "state")}
    asked = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert asked.stdout.strip()
    for said in ("the final adapter of step", "Generating", "the data says:", "final-result-cpu ended"):
        assert said in asked.stderr
