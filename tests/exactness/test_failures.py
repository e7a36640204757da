"""What goes wrong is named, with the exit code of its cause, and never costs a good checkpoint."""

from __future__ import annotations

import math
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_from_disk
from safetensors.numpy import load_file, save_file

from finetune_api.contract.failures import FailureClass
from finetune_trainer.protocol import Facts, Failed, FinalSaved, Saved, StepReport, Warned, WorkerMessage
from finetune_trainer.worker.order import Order
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Attempt, Run, failure, weights


def test_a_diverged_loss_keeps_the_last_good_checkpoint(make_run: MakeRun, model: Path, tmp_path: Path) -> None:
    """A loss that is not finite: LossDiverged with its step, exit 42, and only checkpoints from before it (F-13)."""
    run = make_run({"checkpoint": {"steps": 1}})
    run.model, step = poisoned(model, tmp_path / "poisoned", run)
    result = run.attempt()
    assert result.codes == [42]
    assert failure(result).failure_class == "LossDiverged"
    assert f"step {step}" in failure(result).message
    assert sorted(result.metrics) == sorted(result.checkpoints) == list(range(1, step))
    assert not result.of(FinalSaved)


def poisoned(model: Path, directory: Path, run: Run) -> tuple[Path, int]:
    """Copy the model with one embedding that is not a number, of a token that no row before some later step has; returns that step."""
    spec = run.config(1).spec
    rows = load_from_disk(run.prepared / "train")["input_ids"][:]
    order = Order(len(rows), run.global_batch(1), spec.training.seed, reshuffle=False)
    tokens = [{token for row in order.step_rows(order.epoch_rows(0), step) for token in rows[row]} for step in range(8)]
    step, fresh = next((n + 1, tokens[n] - set().union(*tokens[:n])) for n in range(3, 8) if tokens[n] - set().union(*tokens[:n]))
    shutil.copytree(model, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"][min(fresh)] = np.nan
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory, step


@pytest.mark.parametrize("ranks", [1, 2])
def test_weights_that_are_not_finite_never_become_a_checkpoint(make_run: MakeRun, ranks: int) -> None:
    """F-13: one rank's weight is infinite after a step whose loss was finite; all ranks say so, and the step is not saved."""
    run = make_run({"checkpoint": {"steps": 3}})
    run.worker, run.environment = "tests.exactness.broken_weight", {"FINETUNE_TEST_STEP": "3"}
    result = run.attempt(ranks)
    assert result.codes == [42] * ranks, result.log
    assert {(failed.failure_class, failed.message, failed.step) for failed in result.of(Failed)} == {
        (FailureClass.LOSS_DIVERGED, "weights are no longer finite at step 3", 3)
    }
    assert math.isfinite(result.metrics[3]["loss"])
    assert not result.checkpoints
    assert not list(run.directory.glob("attempt-1/output/checkpoint-*"))


def test_a_lost_peer_ends_the_others_at_once(make_run: MakeRun) -> None:
    """SIGKILL of one of two ranks: the other says PeerLost and leaves with 76."""

    def kill(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == 3:
            attempt.signal(signal.SIGKILL, 1)

    result = make_run().attempt(2, hook=kill, seconds=60)
    assert result.codes == [76, -signal.SIGKILL]
    assert failure(result).failure_class == "PeerLost"


@pytest.mark.parametrize(
    ("spec", "failure_class", "said"),
    [
        ({"adapter": {"targetModules": ["c_attn"], "allowCustomModules": True}}, "ModelError", "it has down_proj, embed_tokens, gate_proj"),
        ({"adapter": {"targetModules": ["c_attn"]}}, "ConfigurationError", "adapter.allowCustomModules"),
        ({"resources": {"device": "gpu"}}, "ConfigurationError", "resources.device"),
    ],
)
def test_user_errors(make_run: MakeRun, spec: dict[str, Any], failure_class: str, said: str) -> None:
    """Exit 42 and a sentence that names the field (AC-30, AC-31)."""
    result = make_run(spec).attempt()
    assert result.codes == [42]
    assert failure(result).failure_class == failure_class
    assert said in failure(result).message


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_optimizer_without_its_library(make_run: MakeRun, optimizer: str) -> None:
    """An image without bitsandbytes: exit 42 before the model is loaded, class, field, value and ways out named (F-14, I-07)."""
    run = make_run({"training": {"optimizer": optimizer}})
    run.worker = "tests.exactness.without_bitsandbytes"
    result = run.attempt()
    assert result.codes == [42], result.log
    assert failure(result).failure_class is FailureClass.QUANTIZATION_UNAVAILABLE
    assert failure(result).message.startswith(f"training.optimizer: {optimizer} cannot be had here")
    assert "set it to adamw_torch, adafactor or sgd" in failure(result).message


def test_a_directory_that_is_no_model(make_run: MakeRun, model: Path, tmp_path: Path) -> None:
    """The directory and the reason are named (AC-06)."""
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").unlink()
    result = make_run(model_dir=broken).attempt()
    assert result.codes == [42]
    assert failure(result).failure_class == "ModelError"
    assert "broken" in failure(result).message


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_save_that_cannot_be_written_is_skipped(make_run: MakeRun, ranks: int) -> None:
    """A full disk costs a checkpoint, not the run: all ranks skip it, the leftovers are removed, training goes on."""
    run = make_run({"checkpoint": {"steps": 5}})
    run.max_file_bytes = 60_000
    result = run.attempt(ranks)
    assert result.codes == [0] * ranks, result.log
    assert not result.of(Saved)
    assert {message.condition for message in result.of(Warned)} == {"CheckpointSkipped"}
    assert len(result.metrics) == 12
    (final,) = result.of(FinalSaved)
    assert [entry.name for entry in final.directory.parent.iterdir()] == ["final"]


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens", "q_proj"], ["enhanced"], ["full"]])
def test_adapters_on_all_modules(make_run: MakeRun, modules: list[str]) -> None:
    """Each of the nine modules and the shorthands trains, also lm_head, which TRL alone refuses (G-08, G-09, AC-31)."""
    run = make_run({"adapter": {"targetModules": modules}, "training": {"maxSteps": 4}})
    whole = run.attempt()
    assert whole.codes == [0], whole.log
    assert int(whole.of(Facts)[0].facts["trainableParameters"]) > 0
    again = run.attempt(resume=4)
    assert weights(again) == weights(whole)
