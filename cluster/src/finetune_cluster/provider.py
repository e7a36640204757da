"""Chooses what the cluster is made of on this machine."""

import enum
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_cluster.errors import NoProviderError
from finetune_cluster.shell import succeeds

CONTEXT_VARIABLE = "KUBE_CONTEXT"


class Provider(enum.StrEnum):
    """The kinds of cluster, in the order of choice."""

    CONTEXT = "context"
    """A cluster the user names; it is used, never changed."""
    KIND = "kind"
    """A kind cluster in Docker."""
    NODE = "node"
    """A single node of processes on this machine."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts about this machine that decide."""

    context: str
    """The kube context the user named, or an empty string."""
    docker_answers: bool
    is_linux: bool
    is_root: bool


def look_at_machine(environment: Mapping[str, str]) -> Machine:
    """Find out what this machine offers."""
    context = environment.get(CONTEXT_VARIABLE, "")
    return Machine(
        context=context,
        docker_answers=not context and succeeds(["docker", "info"]),
        is_linux=platform.system() == "Linux",
        is_root=os.geteuid() == 0,
    )


def choose_provider(machine: Machine) -> Provider:
    """Choose the kind of cluster: a named context, else kind where Docker answers, else a node of this machine's own.

    Raises:
        NoProviderError: none of them is possible here.
    """
    if machine.context:
        return Provider.CONTEXT
    if machine.docker_answers:
        return Provider.KIND
    if machine.is_linux and machine.is_root:
        return Provider.NODE
    raise NoProviderError(
        f"no cluster is possible here: {CONTEXT_VARIABLE} names no context, no Docker engine answers, and a node of this machine's own "
        f"needs root on Linux. Start Docker, name a context in {CONTEXT_VARIABLE}, or use the local runner (kubectl finetune run-local)."
    )
