"""Chooses what the cluster is made of on this machine."""

import enum
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_cluster.errors import ClusterError, NoProviderError
from finetune_cluster.shell import succeeds

CONTEXT_VARIABLE = "KUBE_CONTEXT"
PROVIDER_VARIABLE = "FINETUNE_CLUSTER"


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
    asked_for: str = ""
    """The kind of cluster the user asked for, or an empty string."""


def look_at_machine(environment: Mapping[str, str]) -> Machine:
    """Find out what this machine offers."""
    context = environment.get(CONTEXT_VARIABLE, "")
    return Machine(
        context=context,
        docker_answers=not context and succeeds(["docker", "info"]),
        is_linux=platform.system() == "Linux",
        is_root=os.geteuid() == 0,
        asked_for=environment.get(PROVIDER_VARIABLE, ""),
    )


def choose_provider(machine: Machine) -> Provider:
    """Choose the kind of cluster: a named context, what was asked for, kind where Docker answers, or a node of this machine's own.

    Raises:
        NoProviderError: none of them is possible here, or not the one asked for.
        ClusterError: what was asked for is no kind of cluster.
    """
    if machine.context:
        return Provider.CONTEXT
    missing = {
        Provider.KIND: "" if machine.docker_answers else "no Docker engine answers",
        Provider.NODE: "" if machine.is_linux and machine.is_root else "a node of this machine's own needs root on Linux",
    }
    asked = machine.asked_for
    if asked and asked not in missing:
        raise ClusterError(
            f"{PROVIDER_VARIABLE}={asked} is not one of {', '.join(missing)}; a cluster of yours is named in {CONTEXT_VARIABLE}"
        )
    wanted = [Provider(asked)] if asked else list(missing)
    for provider in wanted:
        if not missing[provider]:
            return provider
    raise NoProviderError(
        f"no cluster is possible here: {CONTEXT_VARIABLE} names no context, {' and '.join(missing[provider] for provider in wanted)}. "
        f"Start Docker, name a context in {CONTEXT_VARIABLE}, or use the local runner (kubectl finetune run-local)."
    )
