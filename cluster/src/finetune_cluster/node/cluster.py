"""The local node as a whole: brought up, repaired, described and taken down."""

import datetime as dt
import http.client
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_cluster import gobuild
from finetune_cluster.errors import ClusterError
from finetune_cluster.home import Home
from finetune_cluster.kubectl import Kubectl
from finetune_cluster.node import programs
from finetune_cluster.node.layout import DNS_READY_PORT, Layout
from finetune_cluster.node.network import set_up_network, tear_down_network
from finetune_cluster.node.objects import build_cluster_objects
from finetune_cluster.node.packages import NODE_PACKAGES, install_packages
from finetune_cluster.node.pki import issue_all
from finetune_cluster.node.ports import check_ports
from finetune_cluster.node.processes import Processes
from finetune_cluster.node.remains import remove_remains
from finetune_cluster.node.setup import write_settings
from finetune_cluster.node.traces import Machine
from finetune_cluster.progress import step
from finetune_cluster.shell import run, search_path
from finetune_cluster.waiting import NotYetError, wait_until

_KUBERNETES = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
"""What is of the version that is asked for; the rest is the same for every version."""
_NAMES = [*_KUBERNETES, "etcd", "coredns", "kubectl", "node-runtime", "volume-provisioner"]
_STOP_ORDER = [
    "kubelet",
    "volume-provisioner",
    "coredns",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "containerd",
]
"""The kubelet first, so that nothing starts pods again; the runtime last, since it is what ends them."""
_START_SECONDS = 120.0
KUBERNETES_VARIABLE = "FINETUNE_KUBERNETES"


def chosen_version(environment: Mapping[str, str]) -> str:
    """Read the version of Kubernetes from `$FINETUNE_KUBERNETES`; empty: the one it is developed with.

    Raises:
        ClusterError: there is no program for it.
    """
    version = environment.get(KUBERNETES_VARIABLE, "")
    if version and version not in gobuild.KUBERNETES:
        raise ClusterError(f"{KUBERNETES_VARIABLE}={version} is not one of {', '.join(gobuild.KUBERNETES)}; leave it out for the newest")
    return version


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the node, as `status` shows it."""

    name: str
    alive: bool
    log: Path


@dataclass(frozen=True, slots=True)
class NodeCluster:
    """A Kubernetes node made of processes on this machine."""

    home: Home
    kubernetes: str = ""
    """Version of Kubernetes, one of `gobuild.KUBERNETES`; empty: the one it is developed with."""
    layout: Layout = field(init=False)
    processes: Processes = field(init=False)

    def __post_init__(self) -> None:
        """Derive the paths from the home folder."""
        layout = Layout(self.home)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "processes", Processes(layout.pids, layout.logs))

    @property
    def kubectl(self) -> Kubectl:
        """Kubectl with the administrator's identity."""
        return Kubectl(self.home.bin / "kubectl", self.home.kubeconfig)

    def up(self, *, pause_image: str, gpus: int) -> None:
        """Bring the node to life; parts that already run as they should are left alone.

        A node none of whose parts lives is begun anew: what it left on the machine is removed first. Images are kept.
        """
        install_packages(NODE_PACKAGES)
        binary = gobuild.build(gobuild.NODE, self.home)
        folder = binary.parent
        gobuild.link_names(binary, _NAMES, folder)
        kubernetes = self._build_kubernetes(folder)
        gobuild.link_names(folder / "kubectl", ["kubectl"], self.home.bin)
        fresh = not self.is_running()
        if fresh:
            self._clear()
        else:
            self._check_version()
        check_ports(self.processes)
        set_up_network()
        Machine().change(self.layout.traces)
        issue_all(self.layout.pki)
        write_settings(self.layout, pause_image)
        self.layout.kubernetes.write_text(self.kubernetes)
        with step("start the node"):
            self._start_runtime(folder, fresh=fresh)
            self._start_control_plane(folder, kubernetes)
            self._start_node(folder, kubernetes)
        self.kubectl.give_gpus(gpus)

    def down(self) -> None:
        """End every process and pod and remove what they left; images and builds are kept."""
        runtime = self.home.bin / "kubectl"
        for name in _STOP_ORDER:
            if name == "containerd" and self.processes.is_alive(name) and runtime.exists():
                self._sweep(runtime.resolve().parent)
            self.processes.stop(name)
        self._clear()
        self.home.kubeconfig.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether any part of the node lives."""
        return any(part.alive for part in self.parts())

    def parts(self) -> list[Part]:
        """List the node's processes."""
        return [Part(name, self.processes.is_alive(name), self.processes.log_of(name)) for name in reversed(_STOP_ORDER)]

    def pull(self, images: list[str]) -> None:
        """Make the node fetch and unpack images now, so that no pod has to wait for it."""
        runtime = (self.home.bin / "kubectl").resolve().parent / "node-runtime"
        run([runtime, "--endpoint", self.layout.runtime_endpoint, "pull", *images])

    def _build_kubernetes(self, default: Path) -> Path:
        if not self.kubernetes:
            return default
        binary = gobuild.build(gobuild.KUBERNETES[self.kubernetes], self.home)
        gobuild.link_names(binary, _KUBERNETES, binary.parent)
        return binary.parent

    def _check_version(self) -> None:
        """Refuse to put another version of Kubernetes under a living cluster."""
        running = self.layout.kubernetes.read_text() if self.layout.kubernetes.exists() else ""
        if running != self.kubernetes:
            raise ClusterError(
                f"the cluster runs Kubernetes {running or 'as it is developed with'}, {KUBERNETES_VARIABLE} asks for "
                f"{self.kubernetes or 'none in particular'}; end the one with `finetune-cluster down` first"
            )

    def _clear(self) -> None:
        remove_remains(self.layout)
        if shutil.which("iptables-save", path=search_path()) is not None:
            tear_down_network()

    def _sweep(self, folder: Path) -> None:
        run([folder / "node-runtime", "--endpoint", self.layout.runtime_endpoint, "sweep"])

    def _start_runtime(self, folder: Path, *, fresh: bool) -> None:
        self.processes.ensure(programs.containerd(self.layout))
        wait_until("the container runtime answers", self._probe_runtime, timeout_seconds=_START_SECONDS)
        if fresh:
            self._sweep(folder)

    def _start_control_plane(self, folder: Path, kubernetes: Path) -> None:
        self.processes.ensure(programs.etcd(self.layout, folder))
        self.processes.ensure(programs.apiserver(self.layout, kubernetes))
        wait_until("the API server answers", self._probe_api, timeout_seconds=_START_SECONDS)
        self.processes.ensure(programs.controller_manager(self.layout, kubernetes))
        self.processes.ensure(programs.scheduler(self.layout, kubernetes))

    def _start_node(self, folder: Path, kubernetes: Path) -> None:
        self.kubectl.apply(build_cluster_objects())
        # A kubelet that starts takes back GPUs it knows nothing of, until its first report: what the node said before does not count.
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        since = now if self.processes.ensure(programs.kubelet(self.layout, kubernetes)) else None
        self.processes.ensure(programs.proxy(self.layout, kubernetes))
        for program in (programs.dns, programs.volume_provisioner):
            self.processes.ensure(program(self.layout, folder))
        wait_until("the node is ready", lambda: self._probe_node(since), timeout_seconds=_START_SECONDS)

    def _probe_runtime(self) -> None:
        self.processes.check("containerd")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(str(self.layout.containerd_socket))
            except OSError as error:
                raise NotYetError(f"{self.layout.containerd_socket} does not answer: {error}") from error

    def _probe_api(self) -> None:
        for name in ("etcd", "kube-apiserver"):
            self.processes.check(name)
        self.kubectl.probe_api()

    def _probe_node(self, since: dt.datetime | None) -> None:
        for part in self.parts():
            self.processes.check(part.name)
        self.kubectl.probe_nodes(since=since)
        _probe_dns()


def _probe_dns() -> None:
    connection = http.client.HTTPConnection("127.0.0.1", DNS_READY_PORT, timeout=5)
    try:
        connection.request("GET", "/ready")
        if connection.getresponse().status != http.HTTPStatus.OK:
            raise NotYetError("the name server has not read the cluster's names yet")
    except OSError as error:
        raise NotYetError(f"the name server does not answer: {error}") from error
    finally:
        connection.close()
