"""Makes sure that the ports of the node are not another program's."""

import socket

from finetune_cluster.errors import ClusterError
from finetune_cluster.node.layout import API_PORT, DNS_READY_PORT, ETCD_PEER_PORT, ETCD_PORT
from finetune_cluster.node.processes import Processes

_PORTS = {
    "etcd": (ETCD_PORT, ETCD_PEER_PORT),
    "kube-apiserver": (API_PORT,),
    "kube-controller-manager": (10257,),
    "kube-scheduler": (10259,),
    "kubelet": (10248, 10250),
    "kube-proxy": (10249, 10256),
    "coredns": (DNS_READY_PORT,),
}


def check_ports(processes: Processes) -> None:
    """Raise if a part of the node that is to be started would find its port taken."""
    for name, ports in _PORTS.items():
        if processes.is_alive(name):
            continue
        for port in ports:
            if _is_taken(port):
                raise ClusterError(f"port {port}, needed by {name}, is in use by another program (another Kubernetes?); end it first")


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
