"""Scores from full logits are those of the textbook."""

from __future__ import annotations

import torch

from finetune_trainer.worker.scores import IGNORED, from_logits


def test_scores_agree_with_cross_entropy() -> None:
    """Loss, entropy and accuracy over the tokens that count; ignored ones add nothing."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 11, requires_grad=True)
    labels = torch.randint(0, 11, (2, 5))
    labels[0, :3] = IGNORED
    scores = from_logits(logits, labels)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED)
    negative, correct, entropy, tokens = scores.sums().tolist()
    torch.testing.assert_close(torch.tensor(negative), loss.detach(), rtol=1e-6, atol=1e-6)
    counted = labels != IGNORED
    assert tokens == counted.sum() == 7
    assert correct == (logits.argmax(-1) == labels)[counted].sum()
    probabilities = torch.softmax(logits.detach(), dim=-1)
    expected = -(probabilities * probabilities.log()).sum(dim=-1)[counted].sum()
    torch.testing.assert_close(torch.tensor(entropy), expected, rtol=1e-6, atol=1e-6)


def test_a_batch_without_labels_is_a_differentiable_zero() -> None:
    """A rank without rows still takes part in the backward pass."""
    logits = torch.randn(1, 2, 4, requires_grad=True)
    scores = from_logits(logits, torch.full((1, 2), IGNORED))
    torch.autograd.backward(-scores.log_probs.sum())
    assert logits.grad is not None
    assert not logits.grad.any()
    assert scores.sums().tolist() == [0, 0, 0, 0]
