"""A cluster that the user names by its kube context: it is used and never changed."""

import shutil
from collections.abc import Mapping

from finetune_cluster.errors import ClusterError
from finetune_cluster.home import Home
from finetune_cluster.images.docker_store import DockerImages
from finetune_cluster.kubectl import Kubectl
from finetune_cluster.provider import CONTEXT_VARIABLE, Provider
from finetune_cluster.shell import CommandError, run
from finetune_cluster.tools import KIND, install_tool
from finetune_cluster.waiting import NotYetError

REGISTRY_VARIABLE = "FINETUNE_REGISTRY"
_KIND_PREFIX = "kind-"
_DOCKER_SECONDS = 30


class ContextCluster:
    """The cluster behind a context of the user's own kubeconfig."""

    provider = Provider.CONTEXT

    def __init__(self, home: Home, context: str, environment: Mapping[str, str]) -> None:
        self._home = home
        self._context = context
        self._registry = environment.get(REGISTRY_VARIABLE, "")
        self.images = DockerImages(self._registry or "localhost/finetune", self._deliver)

    def up(self, gpus: int) -> None:  # noqa: ARG002  nodes of the user's cluster are not given GPUs they do not have
        """Check that the cluster answers and that images can be built and brought to it, and write a kubeconfig for it alone."""
        if self._kubectl_program is None:
            raise ClusterError(f"{CONTEXT_VARIABLE}={self._context}: kubectl is not installed or not on PATH")
        self._check_images()
        contexts = run([self._kubectl_program, "config", "get-contexts", "--output", "name"]).splitlines()
        if self._context not in contexts:
            known = ", ".join(contexts) or "none"
            raise ClusterError(f"{CONTEXT_VARIABLE}={self._context}: the kubeconfig has no such context; it has: {known}")
        config = run([self._kubectl_program, "config", "view", "--minify", "--flatten", "--context", self._context])
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
        return Kubectl(self._kubectl_program or "kubectl", self._home.kubeconfig)

    @property
    def _kubectl_program(self) -> str | None:
        """The user's own: one that is built here knows nothing of the sign-in programs that the kubeconfig may name."""
        return shutil.which("kubectl")

    def _check_images(self) -> None:
        """Refuse now what would fail when an image was built.

        Raises:
            ClusterError: the cluster's nodes can get no image from here.
        """
        if not self._registry and not self._context.startswith(_KIND_PREFIX):
            raise ClusterError(
                f"the nodes of context {self._context} cannot take images from this machine: set {REGISTRY_VARIABLE} to a registry and "
                "repository that they read and that `docker push` may write, such as registry.example.com/team"
            )
        try:
            run(["docker", "info"], timeout_seconds=_DOCKER_SECONDS)
        except CommandError as error:
            raise ClusterError(
                f"{CONTEXT_VARIABLE}={self._context}: images are built by Docker on this machine, and it does not answer: {error}"
            ) from error

    def _deliver(self, reference: str) -> None:
        self._check_images()
        if self._registry:
            run(["docker", "push", "--quiet", reference])
            return
        kind = shutil.which("kind") or install_tool(KIND, self._home)
        run([kind, "load", "docker-image", "--name", self._context.removeprefix(_KIND_PREFIX), reference])
