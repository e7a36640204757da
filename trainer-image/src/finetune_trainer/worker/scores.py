"""Per-token scores of a batch: by TRL's fused head, or from full logits where an adapter sits on the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100


@dataclass(frozen=True)
class Scores:
    """What the loss and the accuracy are made of; [batch, tokens - 1] each, zero where nothing is scored."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    is_top1: torch.Tensor
    label_mask: torch.Tensor
    aux_loss: torch.Tensor | None = None
    """Router loss of a mixture of experts."""

    def sums(self) -> torch.Tensor:
        """Return float64 [negative log likelihood, correct tokens, summed entropy, scored tokens]."""
        values = (-self.log_probs.double().sum(), self.is_top1.sum(), self.entropy.double().sum(), self.label_mask.sum())
        return torch.stack([value.double() for value in values])


def score(model: torch.nn.Module, inputs: dict[str, Any], *, fused: bool) -> Scores:
    """Run the model on a collated batch (``labels`` as TRL's collator makes them)."""
    # A cache would also make packed rows see each other: with one, the model no longer derives their bounds from the positions.
    if fused:
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        return Scores(outputs.log_probs, outputs.entropy.detach(), outputs.is_top1, outputs.label_mask, outputs.aux_loss)
    labels = inputs["labels"][:, 1:]
    outputs = model(**{name: value for name, value in inputs.items() if name != "labels"}, use_cache=False)
    return from_logits(outputs.logits[:, :-1], labels)


def from_logits(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    """Score labels ([batch, tokens], :data:`IGNORED` where none) against the logits before them ([batch, tokens, vocabulary])."""
    mask = labels != IGNORED
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    chosen = log_probs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    entropy = -(log_probs.detach().exp() * log_probs.detach()).sum(dim=-1)
    is_top1 = log_probs.argmax(dim=-1) == labels
    return Scores(chosen.masked_fill(~mask, 0), entropy.masked_fill(~mask, 0), is_top1 & mask, mask)
