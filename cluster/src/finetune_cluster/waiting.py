"""Waits for conditions of other programs."""

import time
from collections.abc import Callable

from finetune_cluster.errors import ClusterError

_POLL_SECONDS = 0.2


class NotYetError(ClusterError):
    """A condition that is waited for does not hold yet; the message says what was seen instead."""


def wait_until(what: str, probe: Callable[[], None], *, timeout_seconds: float) -> None:
    """Call the probe until it no longer raises `NotYetError`.

    Raises:
        ClusterError: the condition did not come to hold in time. Other errors of the probe end the wait at once.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            probe()
        except NotYetError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"not within {timeout_seconds:g} s: {what}. {error}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return
