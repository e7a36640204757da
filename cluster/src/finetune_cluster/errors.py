"""What can go wrong in a way the caller can act on: each error carries the process's exit code."""

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of `finetune-cluster`; scripts rely on them."""

    FAILED = 1
    """A step failed; the message names it and shows the end of its output."""
    NO_PROVIDER = 3
    """This machine can hold no cluster: neither Docker nor root on Linux, and no context was named. Fall back to the local runner."""
    NOT_RUNNING = 4
    """There is no running cluster; `finetune-cluster up` starts one."""


class ClusterError(Exception):
    """A failure whose message is meant for the person at the terminal."""

    exit_code = ExitCode.FAILED


class NoProviderError(ClusterError):
    """No kind of cluster is possible on this machine."""

    exit_code = ExitCode.NO_PROVIDER


class NotRunningError(ClusterError):
    """The command needs a running cluster."""

    exit_code = ExitCode.NOT_RUNNING
