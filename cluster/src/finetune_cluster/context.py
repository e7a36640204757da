"""A cluster that the user names by its kube context: it is used and never changed."""

from collections.abc import Mapping

from finetune_cluster.errors import ClusterError
from finetune_cluster.home import Home
from finetune_cluster.images.docker_store import DockerImages
from finetune_cluster.kubectl import Kubectl
from finetune_cluster.provider import CONTEXT_VARIABLE, Provider
from finetune_cluster.shell import CommandError, run
from finetune_cluster.waiting import NotYetError

REGISTRY_VARIABLE = "FINETUNE_REGISTRY"
_KIND_PREFIX = "kind-"


class ContextCluster:
    """The cluster behind a context of the user's own kubeconfig."""

    provider = Provider.CONTEXT

    def __init__(self, home: Home, context: str, environment: Mapping[str, str]) -> None:
        self._home = home
        self._context = context
        self._registry = environment.get(REGISTRY_VARIABLE, "")
        self.images = DockerImages(self._registry or "localhost/finetune", self._deliver)

    def up(self, gpus: int) -> None:  # noqa: ARG002  nodes of the user's cluster are not given GPUs they do not have
        """Check that the cluster answers, and write a kubeconfig for it alone."""
        try:
            config = run(["kubectl", "config", "view", "--minify", "--flatten", "--context", self._context])
        except CommandError as error:
            raise ClusterError(f"{CONTEXT_VARIABLE}={self._context}: the kubeconfig has no such context") from error
        self._home.root.mkdir(parents=True, exist_ok=True)
        self._home.kubeconfig.touch(mode=0o600)
        self._home.kubeconfig.write_text(config)
        self._kubectl.probe_api()

    def down(self) -> None:
        """Forget the cluster; nothing in it is touched."""
        self._home.kubeconfig.unlink(missing_ok=True)

    def purge(self) -> None:
        """Do nothing: all there is belongs to the user."""

    def is_running(self) -> bool:
        """Whether `up` was called and the cluster answers."""
        if not self._home.kubeconfig.exists():
            return False
        try:
            self._kubectl.probe_api()
        except NotYetError:
            return False
        return True

    def describe(self) -> list[str]:
        """Name the context."""
        return [f"context {self._context}"]

    @property
    def _kubectl(self) -> Kubectl:
        return Kubectl("kubectl", self._home.kubeconfig)

    def _deliver(self, reference: str) -> None:
        if self._registry:
            run(["docker", "push", "--quiet", reference])
        elif self._context.startswith(_KIND_PREFIX):
            run(["kind", "load", "docker-image", "--name", self._context.removeprefix(_KIND_PREFIX), reference])
        else:
            raise ClusterError(
                f"the nodes of context {self._context} cannot take images from this machine: set {REGISTRY_VARIABLE} to a registry and "
                "repository that they read and that `docker push` may write, such as registry.example.com/team"
            )
