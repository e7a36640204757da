"""A server in the cluster: the pod of a short Job, reached by a port-forward, which enters at the pod's own loopback address."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from finetune_api.contract.serve import COMPONENT_SERVE, SERVE_PORT
from finetune_cli.job_runner import JobRunner
from finetune_cli.portforward import port_forward

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune_cli.cluster import Cluster
    from finetune_cli.short_jobs import ShortJob


class ClusterServer:
    """The Job that :func:`finetune_cli.serving.build_server` describes."""

    def __init__(self, cluster: Cluster, runner: JobRunner, objects: ShortJob) -> None:
        self._access, self._runner, self._objects = cluster.access, runner, objects
        self._name, self._namespace = objects.job["metadata"]["name"], objects.job["metadata"]["namespace"]
        self._pod = ""

    def start(self) -> bool:
        """Create the Job. False: it is there already."""
        return self._runner.start(self._objects)

    def waits_for(self) -> str:
        """Why its pod cannot be asked yet; empty when it may be tried.

        Raises:
            CliError: the Job has ended.
        """
        self._pod, reason = self._runner.waits_for(self._name, self._namespace)
        return f"{self._pod or f'job/{self._name}'}: {reason}" if reason else ""

    def reached(self) -> AbstractContextManager[str]:
        """Its address, for as long as the context lasts."""
        return self._forwarded()

    @contextmanager
    def _forwarded(self) -> Iterator[str]:
        with port_forward(self._namespace, f"pod/{self._pod}", SERVE_PORT, self._access) as port:
            yield f"http://127.0.0.1:{port}"


def stop_servers(runner: JobRunner, owner_uid: str, namespace: str) -> list[str]:
    """End all servers of a FineTuneJob; returns the names of their Jobs."""
    return runner.remove_owned(COMPONENT_SERVE, owner_uid, namespace)
