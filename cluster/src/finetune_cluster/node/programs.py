"""The command lines of the node's programs.

Chosen for a small machine and a cluster that is thrown away: one instance of each part and therefore no leader election, no disk
synchronisation in etcd, short leases so that a vanished node is noticed within half a minute.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_cluster.node.layout import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_IP,
    NODE_NAME,
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
)
from finetune_cluster.node.processes import Program

Flags = Mapping[str, str | Path]

NODE_SILENCE_SECONDS = 20
"""A node that has not renewed its lease for so long is not ready."""
TOLERATION_SECONDS = 30
"""Pods that say nothing else leave a node that has not been ready for so long."""
_NICENESS = -5
"""The control plane goes first: training pods use all cores there are."""
NO_TELEMETRY = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
"""For the registry, which would otherwise look for a collector on this machine."""
_ISSUER = "https://kubernetes.default.svc.cluster.local"


def etcd(layout: Layout, binary: Path) -> Program:
    """Describe the object store; reached with certificates only, since every user of the machine can open its port."""
    pki = layout.pki
    client, peer = f"https://127.0.0.1:{ETCD_PORT}", f"https://127.0.0.1:{ETCD_PEER_PORT}"
    tls: Flags = {
        "cert-file": pki / "etcd.crt",
        "key-file": pki / "etcd.key",
        "trusted-ca-file": pki / "etcd-ca.crt",
        "client-cert-auth": "true",
    }
    flags: Flags = {
        "name": NODE_NAME,
        "data-dir": layout.etcd,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"{NODE_NAME}={peer}",
        **tls,
        **{f"peer-{name}": value for name, value in tls.items()},
        "unsafe-no-fsync": "true",
        "heartbeat-interval": "500",
        "election-timeout": "5000",
        "quota-backend-bytes": str(4 * 1024**3),
        "log-level": "warn",
    }
    return _program("etcd", binary, flags, files=[pki / "etcd.crt"])


def apiserver(layout: Layout, binary: Path) -> Program:
    """Describe the API server; it listens on the bridge's address only."""
    pki = layout.pki
    flags: Flags = {
        "advertise-address": NODE_IP,
        "bind-address": NODE_IP,
        "secure-port": str(API_PORT),
        "etcd-servers": f"https://127.0.0.1:{ETCD_PORT}",
        "etcd-cafile": pki / "etcd-ca.crt",
        "etcd-certfile": pki / "etcd-client.crt",
        "etcd-keyfile": pki / "etcd-client.key",
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-kubelet-client.crt",
        "kubelet-client-key": pki / "apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": _ISSUER,
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-cluster-ip-range": SERVICE_CIDR,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "default-not-ready-toleration-seconds": str(TOLERATION_SECONDS),
        "default-unreachable-toleration-seconds": str(TOLERATION_SECONDS),
        "profiling": "false",
    }
    return _program("kube-apiserver", binary, flags, files=[pki / "apiserver.crt"])


def controller_manager(layout: Layout, binary: Path) -> Program:
    """Describe the controllers; generous client limits, since tests create many jobs at once."""
    pki = layout.pki
    flags: Flags = {
        "kubeconfig": layout.config / "controller-manager.kubeconfig",
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "cluster-cidr": POD_CIDR,
        "service-cluster-ip-range": SERVICE_CIDR,
        "allocate-node-cidrs": "false",
        "root-ca-file": pki / "ca.crt",
        "cluster-signing-cert-file": pki / "ca.crt",
        "cluster-signing-key-file": pki / "ca.key",
        "service-account-private-key-file": pki / "service-accounts.key",
        "use-service-account-credentials": "true",
        "node-monitor-grace-period": f"{NODE_SILENCE_SECONDS}s",
        "flex-volume-plugin-dir": layout.kubelet / "volume-plugins",
        "kube-api-qps": "100",
        "kube-api-burst": "200",
        "profiling": "false",
    }
    return _program("kube-controller-manager", binary, flags, files=[layout.config / "controller-manager.kubeconfig", pki / "ca.crt"])


def scheduler(layout: Layout, binary: Path) -> Program:
    """Describe the scheduler."""
    kubeconfig = layout.config / "scheduler.kubeconfig"
    flags: Flags = {
        "kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "kube-api-qps": "100",
        "kube-api-burst": "200",
        "profiling": "false",
    }
    return _program("kube-scheduler", binary, flags, files=[kubeconfig, layout.pki / "scheduler.crt"])


def containerd(layout: Layout) -> Program:
    """Describe the container runtime."""
    config = layout.config / "containerd.toml"
    command = ["/usr/bin/containerd", "--config", str(config), "--log-level", "warn"]
    return Program("containerd", command, files=[config], niceness=_NICENESS)


def kubelet(layout: Layout, binary: Path) -> Program:
    """Describe the kubelet."""
    config, kubeconfig = layout.config / "kubelet.yaml", layout.config / "kubelet.kubeconfig"
    flags: Flags = {
        "config": config,
        "kubeconfig": kubeconfig,
        "root-dir": layout.kubelet,
        "cert-dir": layout.pki,
        "hostname-override": NODE_NAME,
        "node-ip": NODE_IP,
    }
    return _program("kubelet", binary, flags, files=[config, kubeconfig, layout.pki / "kubelet.crt"])


def proxy(layout: Layout, binary: Path) -> Program:
    """Describe what makes Services reachable."""
    config = layout.config / "proxy.yaml"
    return _program("kube-proxy", binary, {"config": config}, files=[config, layout.pki / "proxy.crt"])


def dns(layout: Layout, binary: Path) -> Program:
    """Describe the cluster's name server."""
    config = layout.config / "Corefile"
    command = [str(binary / "coredns"), "-conf", str(config)]
    return Program("coredns", command, files=[config, layout.pki / "dns.crt"], niceness=_NICENESS)


def volume_provisioner(layout: Layout, binary: Path) -> Program:
    """Describe what serves PersistentVolumeClaims."""
    kubeconfig = layout.config / "volumes.kubeconfig"
    flags: Flags = {"kubeconfig": kubeconfig, "root": layout.volumes}
    return _program("volume-provisioner", binary, flags, files=[kubeconfig, layout.pki / "volumes.crt"])


def registry(layout: Layout, binary: Path) -> Program:
    """Describe the image registry."""
    config = layout.registry_run / "config.yaml"
    return Program("registry", [str(binary), "serve", str(config)], files=[config], environment=NO_TELEMETRY)


def _program(name: str, folder: Path, flags: Flags, *, files: Sequence[Path]) -> Program:
    command = [str(folder / name), *(f"--{flag}={value}" for flag, value in flags.items())]
    return Program(name, command, files=files, niceness=_NICENESS)
