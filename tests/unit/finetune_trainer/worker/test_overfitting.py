"""When the curves show overfitting (F-20)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from finetune_trainer.worker.overfitting import suspicion


def history(train: Sequence[float | None], evaluation: Sequence[float]) -> list[dict[str, float]]:
    """Two logs and an evaluation every ten steps."""
    entries: list[dict[str, float]] = []
    for turn, (loss, value) in enumerate(zip(train, evaluation, strict=True), start=1):
        if loss is not None:
            entries += [{"loss": loss + 0.1, "step": 10 * turn - 5}, {"loss": loss - 0.1, "step": 10 * turn}]
        entries.append({"eval_loss": value, "step": 10 * turn})
    return entries


def test_three_rises_while_training_falls() -> None:
    """The message names the step that was best and what to do."""
    said = suspicion(history([5, 4, 3, 2, 1], [2.0, 1.5, 1.6, 1.7, 1.8]))
    assert "to 1.8 at step 50" in said
    assert "lowest, 1.5, at step 20" in said
    assert "earlyStopping.patience" in said


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        pytest.param([], [], id="nothing yet"),
        pytest.param([5, 4, 3], [1, 2, 3], id="too few evaluations"),
        pytest.param([5, 4, 3, 2], [1.0, 1.1, 1.1, 1.2], id="one evaluation did not rise"),
        pytest.param([5, 4, 3, 3], [1.0, 1.1, 1.2, 1.3], id="training does not fall"),
        pytest.param([5, 4, 3, 2, 1], [1.0, 1.1, 1.2, 1.3, 1.25], id="evaluation fell again"),
        pytest.param([5, 4, None, 2], [1.0, 1.1, 1.2, 1.3], id="nothing logged between two evaluations"),
    ],
)
def test_nothing_is_suspected(train: list[float | None], evaluation: list[float]) -> None:
    """Noise, divergence and recovery are something else."""
    assert suspicion(history(train, evaluation)) == ""
