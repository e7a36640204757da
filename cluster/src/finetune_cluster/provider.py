"""Chooses what the cluster is made of on this machine."""

import enum
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_cluster.errors import ClusterError, NoProviderError
from finetune_cluster.node.packages import IMAGE_PACKAGES, NODE_PACKAGES, can_have
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
    has_packages: bool = True
    """Whether the Debian packages of the node are there or can be installed."""
    may_isolate: bool = True
    """Whether mounts and networks of its own are allowed: root of a container has mostly no right to make them."""


def look_at_machine(environment: Mapping[str, str]) -> Machine:
    """Find out what this machine offers."""
    context = environment.get(CONTEXT_VARIABLE, "")
    asked_for = environment.get(PROVIDER_VARIABLE, "")
    is_linux, is_root = platform.system() == "Linux", os.geteuid() == 0
    return Machine(
        context=context,
        docker_answers=not context and succeeds(["docker", "info"]),
        is_linux=is_linux,
        is_root=is_root,
        asked_for=asked_for,
        has_packages=can_have({**NODE_PACKAGES, **IMAGE_PACKAGES}),
        may_isolate=is_linux and is_root and succeeds(["unshare", "--mount", "--net", "true"]),
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
        Provider.NODE: _missing_for_node(machine),
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
        f"Start Docker, name a context in {CONTEXT_VARIABLE}, or do without a cluster: `make demo-local` (the demo with --local), or the "
        "local runner (kubectl finetune run-local)."
    )


def _missing_for_node(machine: Machine) -> str:
    if not machine.is_linux or not machine.is_root:
        return "a node of this machine's own needs root on Linux"
    if not machine.has_packages:
        return "a node of this machine's own needs packages of Debian or Ubuntu, and there is no apt-get"
    if not machine.may_isolate:
        return "a node of this machine's own needs the right to make mounts and networks (unshare fails: a container without privileges?)"
    return ""
