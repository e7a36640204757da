"""Every optimizer step's loss, gradient norm and learning rate: kept on the device, read once per ``logging.steps``, written to disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TextIO

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import StepReport
from finetune_trainer.worker.gpu import GpuMeter
from finetune_trainer.worker.order import rows_digest

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session

LOCAL_VALUES = 5
"""What a rank knows of a step: loss, correctly predicted tokens, summed entropy, trained tokens, tokens read; all but the first 0 where
only the trainer knows them (:attr:`StepRecord.metrics`)."""


@dataclass(frozen=True)
class PendingStep:
    """A finished step whose values are still on the device."""

    step: int
    learning_rate: float
    seconds: float
    values: torch.Tensor
    """[:data:`LOCAL_VALUES`] of this rank."""
    grad_norm: torch.Tensor
    """The same on all ranks."""
    update_skipped: bool
    """The gradient scaler found an overflow and skipped the update, as it does while it finds its scale."""
    tokens: int | None
    """Tokens of the step, over all ranks; None where they are counted while they are read."""
    metrics: Mapping[str, float]
    """Numbers of the method, known on the host."""


@dataclass(frozen=True)
class StepRecord:
    """One line of the metrics file."""

    attempt: int
    step: int
    epoch: float
    loss: float
    grad_norm: float | None
    """None where the gradient scaler skipped the update."""
    learning_rate: float
    tokens: int
    """Tokens of the step's rows, over all ranks."""
    seconds: float
    replayed: bool
    samples: str
    """Digest of the rows of the step."""
    token_accuracy: float | None
    """None where the method does not say."""
    entropy: float | None
    metrics: Mapping[str, float]
    """Numbers of the method, by the trainer's names; empty for sft and pretrain."""


class Recorder:
    """Collects steps and reads them from the device when asked; reading is collective, so all ranks ask at the same step."""

    def __init__(self, session: Session, row_lengths: NDArray[np.int64] | None) -> None:
        """``row_lengths`` in tokens; None where rows are tokenised later."""
        self._session = session
        self._row_lengths = row_lengths
        self._pending: list[PendingStep] = []
        self._latest: PendingStep | None = None
        self._values: torch.Tensor | None = None
        self._grad_norm: torch.Tensor | None = None
        self._read_tokens: dict[int, int] = {}
        """Of the steps that were read last."""
        self._epoch_rows: tuple[int, NDArray[np.int64]] | None = None
        self.meter: GpuMeter | None = None
        """Set once the model is there."""
        self._file: TextIO | None = None
        if session.rank.is_first:
            session.plan.metrics_file.parent.mkdir(parents=True, exist_ok=True)
            self._file = session.plan.metrics_file.open("a", encoding="utf-8")

    def add_micro_batch(self, values: torch.Tensor) -> None:
        """Add a micro-batch's [:data:`LOCAL_VALUES`] to the current step."""
        self._values = values if self._values is None else self._values + values

    def forget_micro_batch(self) -> None:
        """Drop what was added since the last step."""
        self._values = None

    def add_grad_norm(self, norm: torch.Tensor) -> None:
        """Keep the norm of the step's gradients before clipping."""
        self._grad_norm = norm.detach()

    def end_step(
        self,
        step: int,
        *,
        learning_rate: float,
        seconds: float,
        update_skipped: bool,
        tokens: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Close the current step. ``tokens`` is what all ranks read, where it is more than the rows have."""
        assert self._values is not None, "a step has at least one micro-batch"
        assert self._grad_norm is not None, "gradients are clipped in every step"
        read = self._tokens(step) if tokens is None else tokens
        self._latest = PendingStep(step, learning_rate, seconds, self._values, self._grad_norm, update_skipped, read, metrics or {})
        self._pending.append(self._latest)
        self._values = self._grad_norm = None

    def read(self) -> list[StepRecord]:
        """Read the pending steps from the device, write them to the metrics file and add them to the open logging window.

        Collective. Raises :class:`TrainerError` (LossDiverged) on all ranks alike when a loss or norm is not finite, after the steps before
        it were written.
        """
        if not self._pending:
            return []
        local = torch.stack([pending.values.double() for pending in self._pending]).cpu()
        norms = torch.stack([pending.grad_norm.double().reshape(()) for pending in self._pending]).cpu().tolist()
        world = self._session.group.gather(local.flatten()).view(-1, len(self._pending), LOCAL_VALUES)
        records: list[StepRecord] = []
        try:
            for index, (pending, norm) in enumerate(zip(self._pending, norms, strict=True)):
                records.append(self._record(pending, norm, world[:, index]))
        finally:
            self._pending.clear()
            self._write(records)
        self._read_tokens = {record.step: record.tokens for record in records}
        self._session.progress.window += [record.loss for record in records]
        self._session.progress.tokens_seen += sum(record.tokens for record in records)
        return records

    def report(self, loss: float | None, grad_norm: float | None, metrics: Mapping[str, float] | None = None) -> None:
        """Tell the supervisor about the latest step (rank 0), with loss, norm and the method's numbers where they have just been read."""
        latest, session = self._latest, self._session
        if latest is None or not session.rank.is_first:
            return
        unread = sum(pending.tokens or 0 for pending in self._pending)
        tokens = self._read_tokens.get(latest.step) if latest.tokens is None else latest.tokens
        speed = tokens / latest.seconds if tokens is not None else None
        session.link.send(
            StepReport(
                step=latest.step,
                total_steps=session.schedule.total_steps,
                epoch=session.schedule.epoch(latest.step),
                loss=loss,
                grad_norm=grad_norm,
                learning_rate=latest.learning_rate,
                tokens_per_second=speed,
                step_seconds=latest.seconds,
                tokens_seen=session.progress.tokens_seen + unread,
                gpu_memory_bytes=self.meter.peak_memory() if self.meter is not None else None,
                mfu=self.meter.utilization(speed) if self.meter is not None and speed is not None else None,
                metrics=dict(metrics) if metrics else None,
                replayed=latest.step <= session.plan.lost_until_step,
            )
        )

    def close(self) -> None:
        """Close the metrics file."""
        if self._file is not None:
            self._file.close()

    def _record(self, pending: PendingStep, norm: float, world: torch.Tensor) -> StepRecord:
        """Combine one step's values of all ranks ([ranks, :data:`LOCAL_VALUES`], float64)."""
        loss = float(world[:, 0].sum()) / len(world)
        _, correct, entropy, tokens, read = world.sum(dim=0).tolist()
        if not math.isfinite(loss) or not (math.isfinite(norm) or pending.update_skipped):
            what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
            raise TrainerError(
                FailureClass.LOSS_DIVERGED,
                f"training diverged at step {pending.step}: {what}, learning rate {pending.learning_rate:.3g}",
                step=pending.step,
            )
        return StepRecord(
            attempt=self._session.plan.attempt,
            step=pending.step,
            epoch=self._session.schedule.epoch(pending.step),
            loss=loss,
            grad_norm=norm if math.isfinite(norm) else None,
            learning_rate=pending.learning_rate,
            tokens=int(read) if pending.tokens is None else pending.tokens,
            seconds=pending.seconds,
            replayed=pending.step <= self._session.plan.lost_until_step,
            samples=rows_digest(self._rows(pending.step)),
            token_accuracy=correct / tokens if tokens > 0 else pending.metrics.get("mean_token_accuracy"),
            entropy=entropy / tokens if tokens > 0 else pending.metrics.get("entropy"),
            metrics=pending.metrics,
        )

    def _rows(self, step: int) -> NDArray[np.int64]:
        order = self._session.order
        epoch, within = order.place(step)
        if self._epoch_rows is None or self._epoch_rows[0] != epoch:
            self._epoch_rows = (epoch, order.epoch_rows(epoch))
        return order.step_rows(self._epoch_rows[1], within)

    def _tokens(self, step: int) -> int | None:
        return None if self._row_lengths is None else int(self._row_lengths[self._rows(step)].sum())

    def _write(self, records: list[StepRecord]) -> None:
        if self._file is not None:
            self._file.writelines(json.dumps(asdict(record)) + "\n" for record in records)
            self._file.flush()
