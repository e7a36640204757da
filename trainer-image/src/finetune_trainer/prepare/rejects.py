"""Rows that cannot be used: the first one ends the run, or all are left out and counted (``dataset.onError``)."""

from __future__ import annotations

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError


class Rejects:
    """What becomes of malformed rows."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self.count = 0
        self.first = ""
        """What is wrong with the first one."""

    def add(self, error: TrainerError) -> None:
        """Count a row that cannot be used. Raises ``error`` where such rows end the run, and every error that is not about data."""
        if not self._skip or error.failure_class is not FailureClass.DATA:
            raise error
        self.count += 1
        self.first = self.first or error.message
