"""Errors whose message is meant for the person at the terminal."""

from __future__ import annotations


class CliError(Exception):
    """A command cannot go on; the message says why and what helps. Shown without a traceback."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice
        """What to do about it; empty when the message says it already."""


class NotAllowedError(CliError):
    """The API server does not let this user do it."""


class JobGoneError(CliError):
    """The FineTuneJob does not exist, or was deleted while it was followed."""
