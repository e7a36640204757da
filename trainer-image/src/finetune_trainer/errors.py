"""The one exception for everything a user or an administrator can mend: it knows its failure class, and so its exit code and advice."""

from __future__ import annotations

from finetune_api.contract.failures import REACTIONS, FailureClass


class TrainerError(Exception):
    """Ends the trainer with a class and one sentence that names the field, the value and the fix."""

    def __init__(self, failure_class: FailureClass, message: str, *, step: int | None = None, steady_until: int | None = None) -> None:
        """Take class and sentence, and where it matters the optimizer step.

        ``steady_until`` is the last step before the trouble began, where that was earlier than ``step``.
        """
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message
        self.step = step
        self.steady_until = steady_until

    @property
    def exit_code(self) -> int:
        """Exit code of the class, from the contract's table."""
        return REACTIONS[self.failure_class].exit_code


def configuration_error(message: str) -> TrainerError:
    """Build the error of a field that cannot be used as it stands."""
    return TrainerError(FailureClass.CONFIGURATION, message)
