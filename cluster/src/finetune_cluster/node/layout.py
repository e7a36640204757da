"""Names, addresses and paths of the local node. Bridge and ports are the machine's, so there is one node at a time."""

from dataclasses import dataclass
from pathlib import Path

from finetune_cluster.home import Home

NODE_NAME = "finetune"
CONTEXT_NAME = "finetune-local"
BRIDGE = "finetune0"
BRIDGE_MAC = "02:46:54:00:00:01"
"""A bridge without an address of its own takes the lowest one of its ports, and changes it as pods come and go."""
NODE_IP = "10.244.0.1"
"""The bridge's address: always there, whatever networks the machine joins, and not reachable from outside the machine."""
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
REGISTRY_PORT = 5005
DNS_READY_PORT = 10281
CNI_PLUGINS = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
POD_CGROUP = "kubepods"
API_URL = f"https://{NODE_IP}:{API_PORT}"
REGISTRY_ADDRESS = f"127.0.0.1:{REGISTRY_PORT}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of the local node."""

    home: Home
    run: Path = Path("/run/finetune-cluster")
    """Sockets and mounts. A short path, since a socket's may not exceed 107 bytes, and gone after a reboot as they are."""

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.home.node / "pki"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.home.node / "config"

    @property
    def kubernetes(self) -> Path:
        """Which program of Kubernetes the node was begun with; its objects may be of no use to another."""
        return self.home.node / "kubernetes"

    @property
    def logs(self) -> Path:
        """One log file for each component."""
        return self.home.node / "logs"

    @property
    def pids(self) -> Path:
        """One record for each process that was started."""
        return self.home.node / "pids"

    @property
    def etcd(self) -> Path:
        """The cluster's objects."""
        return self.home.node / "etcd"

    @property
    def kubelet(self) -> Path:
        """Pod volumes."""
        return self.home.node / "kubelet"

    @property
    def pod_logs(self) -> Path:
        """Container logs."""
        return self.home.node / "pod-logs"

    @property
    def cni_config(self) -> Path:
        """Network configuration of pods."""
        return self.home.node / "cni" / "net.d"

    @property
    def cni_leases(self) -> Path:
        """Pod addresses in use."""
        return self.home.node / "cni" / "leases"

    @property
    def volumes(self) -> Path:
        """One directory for each PersistentVolume."""
        return self.home.node / "volumes"

    @property
    def folders(self) -> tuple[Path, ...]:
        """What must be there before the first program starts."""
        written = (self.config, self.cni_config, self.cni_leases, self.volumes, self.kubelet, self.etcd, self.pod_logs)
        return (self.run, *written)

    @property
    def traces(self) -> Path:
        """What was changed on the machine outside this folder, so that `down` can undo it."""
        return self.home.node / "traces.json"

    @property
    def containerd_state(self) -> Path:
        """Mounts and sandboxes of running containers."""
        return self.run / "containerd"

    @property
    def containerd_socket(self) -> Path:
        """Where the container runtime listens."""
        return self.run / "containerd.sock"

    @property
    def runtime_endpoint(self) -> str:
        """The container runtime's socket in the form that Kubernetes takes."""
        return f"unix://{self.containerd_socket}"

    @property
    def registry_run(self) -> Path:
        """Records and logs of the image registry, which outlives the node."""
        return self.home.root / "registry-run"
