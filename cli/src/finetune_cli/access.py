"""How a cluster is reached. The client library is loaded only when one is: it takes longer than most commands without a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_cli.errors import CliError

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Access:
    """How the cluster is reached; the same two options as kubectl's."""

    kubeconfig: str | None = None
    """File; unset: $KUBECONFIG, then ~/.kube/config."""
    context: str | None = None
    """Unset: the current one."""

    def kubectl_flags(self) -> list[str]:
        """The same access for a kubectl process."""
        flags = ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        return [*flags, "--context", self.context] if self.context else flags

    def namespace(self) -> str:
        """Namespace of the context, ``default`` where it names none."""
        from kubernetes import config

        try:
            contexts, current = config.list_kube_config_contexts(self.kubeconfig)
        except config.ConfigException as error:
            raise _no_access(error) from error
        wanted = self.context or current["name"]
        chosen = next((entry for entry in contexts if entry["name"] == wanted), None)
        if chosen is None:
            raise CliError(f"the kubeconfig has no context {wanted!r}", advice=f"It has: {', '.join(entry['name'] for entry in contexts)}.")
        return str(chosen["context"].get("namespace", "default"))

    def connect(self) -> Cluster:
        """Open the API of this cluster."""
        from kubernetes import config

        from finetune_cli.cluster import Cluster

        try:
            api = config.new_client_from_config(config_file=self.kubeconfig, context=self.context)
        except config.ConfigException as error:
            raise _no_access(error) from error
        return Cluster(self, api)


def _no_access(error: Exception) -> CliError:
    return CliError(f"no access to a cluster: {error}", advice="Set KUBECONFIG or --kubeconfig, or choose another --context.")
