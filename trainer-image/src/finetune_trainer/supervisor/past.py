"""What earlier attempts of a job left for the next one to count on."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_api.contract.store import Rewind, UsageSeconds
from finetune_trainer.protocol import ResumePoint
from finetune_trainer.rewinds import after_divergence
from finetune_trainer.store.base import Store
from finetune_trainer.store.heartbeat import Heartbeat, newest_heartbeat
from finetune_trainer.store.ledger import Ledger
from finetune_trainer.supervisor.attempt import Claim


@dataclass(frozen=True)
class Past:
    """Sums over all attempts before this one, and what they found out."""

    usage: UsageSeconds = field(default_factory=UsageSeconds)
    last: Heartbeat | None = None
    """Of the attempt this one follows; None where a wish for a certain checkpoint starts a branch of its own."""

    @property
    def reached(self) -> int:
        """Step up to which an earlier attempt trained."""
        return self.last.reached if self.last is not None else 0

    def first_heartbeat(self, attempt: int) -> Heartbeat:
        """What the new attempt says until it knows more: nothing known so far is forgotten when it ends during its start."""
        if self.last is None:
            return Heartbeat(attempt=attempt, step=0)
        return self.last.model_copy(update={"attempt": attempt, "step": 0, "lost_until_step": self.reached})

    def rewinds(self, point: ResumePoint | None, step: int, *, goes_back: bool) -> list[Rewind]:
        """Rewinds of an attempt that starts at ``step``; ``goes_back``: a divergence of the last attempt adds one."""
        if self.last is None:
            return list(point.manifest.rewinds) if point is not None and point.manifest is not None else []
        if self.last.diverged_step is None or not goes_back:
            return self.last.rewinds
        return after_divergence(self.last.rewinds, step=step, diverged_step=self.last.diverged_step)


def read_past(store: Store, claim: Claim) -> Past:
    """Read the last heartbeat. Raises the store's typed errors."""
    beat = newest_heartbeat(store, claim.ledger.attempts)
    return Past(usage=usage_so_far(claim.ledger, beat), last=None if claim.is_wish else beat)


def usage_so_far(ledger: Ledger, beat: Heartbeat | None) -> UsageSeconds:
    """The highest of each use: every document holds sums over all attempts before it, so none may fall behind another."""
    told = [checkpoint.manifest.usage for checkpoint in ledger.checkpoints]
    if beat is not None and beat.usage is not None:
        told.append(beat.usage)
    return UsageSeconds.model_validate(
        {use: max((getattr(usage, use) for usage in told), default=0.0) for use in UsageSeconds.model_fields}
    )
