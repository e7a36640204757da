"""Retries of one store call: exponential back-off with jitter up to a deadline, then one typed error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import stamina

from finetune_trainer.store.errors import StorageUnavailableError, TransientStoreError

Result = TypeVar("Result")
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0


def with_retries(call: Callable[[], Result], *, what: str, patience: float) -> Result:
    """Run ``call`` until it does not raise :class:`TransientStoreError`, at most ``patience`` seconds.

    ``what`` names the operation in the :class:`StorageUnavailableError` raised then.
    """
    try:
        for attempt in stamina.retry_context(
            on=TransientStoreError,
            attempts=None,
            timeout=patience,
            wait_initial=FIRST_WAIT_SECONDS,
            wait_max=LONGEST_WAIT_SECONDS,
            wait_jitter=FIRST_WAIT_SECONDS,
        ):
            with attempt:
                return call()
    except TransientStoreError as error:
        raise StorageUnavailableError(f"{what}: no success within {patience:.0f} s, last answer: {error}") from error
    raise AssertionError("unreachable: the retry context returns or raises")
