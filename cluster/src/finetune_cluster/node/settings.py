"""The configuration files of the node's components, as data."""

import base64
from pathlib import Path
from typing import Any

import yaml

from finetune_cluster.node.layout import (
    API_URL,
    BRIDGE,
    CNI_PLUGINS,
    CONTEXT_NAME,
    DNS_READY_PORT,
    DNS_SERVICE_IP,
    NODE_IP,
    NODE_NAME,
    POD_CIDR,
    REGISTRY_ADDRESS,
    REGISTRY_PORT,
    Layout,
)

Document = dict[str, Any]

LEASE_SECONDS = 12
"""The kubelet renews its lease four times in this time; the controller manager waits for 20 s of silence."""


def build_kubeconfig(layout: Layout, identity: str) -> Document:
    """Build a kubeconfig for one of the identities in the node's key folder; keys are referred to, not copied."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT_NAME,
        "clusters": [{"name": CONTEXT_NAME, "cluster": {"server": API_URL, "certificate-authority": str(layout.pki / "ca.crt")}}],
        "users": [
            {
                "name": identity,
                "user": {
                    "client-certificate": str(layout.pki / f"{identity}.crt"),
                    "client-key": str(layout.pki / f"{identity}.key"),
                },
            }
        ],
        "contexts": [{"name": CONTEXT_NAME, "context": {"cluster": CONTEXT_NAME, "user": identity}}],
    }


def embed_files(kubeconfig: Document) -> Document:
    """Put the content of the files a kubeconfig refers to into it, so that it can be copied to where those are not."""
    return {
        **kubeconfig,
        "clusters": [{**entry, "cluster": _embedded(entry["cluster"])} for entry in kubeconfig["clusters"]],
        "users": [{**entry, "user": _embedded(entry["user"])} for entry in kubeconfig["users"]],
    }


def _embedded(section: Document) -> Document:
    paths = ("certificate-authority", "client-certificate", "client-key")
    return {
        (f"{key}-data" if key in paths else key): (base64.b64encode(Path(value).read_bytes()).decode() if key in paths else value)
        for key, value in section.items()
    }


def build_kubelet_config(layout: Layout) -> Document:
    """Build the kubelet's configuration.

    `cgroupfs` and `failCgroupV1` leave the machine's cgroups as they are, whichever version they have. Without local storage isolation the
    kubelet need not find out which disk the layers are on, which fails on machines without a device database.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "containerRuntimeEndpoint": layout.runtime_endpoint,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "podLogsDir": str(layout.pod_logs),
        "volumePluginDir": str(layout.kubelet / "volume-plugins"),
        "maxPods": 250,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "syncFrequency": "30s",
        # Images go by age and not by how full the disk is: the machine's disk is not the node's alone, and the registry still has them.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "imageMaximumGCAge": "24h",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
    }


def build_proxy_config(layout: Layout) -> Document:
    """Build kube-proxy's configuration: node ports only on the node's own address, and no kernel settings of connection tracking."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": NODE_IP,
        "clientConnection": {"kubeconfig": str(layout.config / "proxy.kubeconfig")},
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "mode": "iptables",
        "iptables": {"localhostNodePorts": False, "syncPeriod": "60s", "minSyncPeriod": "0.2s"},
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
    }


def build_cni_config(layout: Layout) -> Document:
    """Build the pods' network: a bridge, addresses from a directory of leases, host ports."""
    return {
        "cniVersion": "0.4.0",
        "name": "finetune",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "hairpinMode": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(layout.cni_leases),
                    "ranges": [[{"subnet": POD_CIDR, "gateway": NODE_IP}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def render_containerd_config(layout: Layout, pause_image: str) -> str:
    """Render containerd's configuration: paths of its own, so that nothing of the machine's is touched.

    `restrict_oom_score_adj` lets sandboxes start where root may not lower OOM scores, as in many virtual machines and containers.
    """
    return f"""version = 2
root = "{layout.home.containerd}"
state = "{layout.containerd_state}"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  netns_mounts_under_state_dir = true
  max_concurrent_downloads = 4

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    discard_unpacked_layers = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{layout.cni_config}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{layout.config / "registries"}"
"""


def render_registry_hosts() -> str:
    """Render how containerd reaches the local registry: without TLS, since it listens on the loopback address only."""
    return f"""server = "http://{REGISTRY_ADDRESS}"

[host."http://{REGISTRY_ADDRESS}"]
  capabilities = ["pull", "resolve"]
"""


def build_registry_config(layout: Layout) -> Document:
    """Build the configuration of the local image registry."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(layout.home.registry)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }


def render_corefile(layout: Layout, *, has_upstream: bool) -> str:
    """Render CoreDNS's configuration; names outside the cluster are forwarded only where the machine itself has a name server."""
    forward = "    forward . /etc/resolv.conf\n" if has_upstream else ""
    return f""".:53 {{
    bind {NODE_IP}
    errors
    ready 127.0.0.1:{DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig "{layout.config / "dns.kubeconfig"}"
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
{forward}    cache 30 {{
        disable success cluster.local
        disable denial cluster.local
    }}
}}
"""


def render(document: Document) -> str:
    """Render a document as YAML, keys in the order in which they were written."""
    return yaml.safe_dump(document, sort_keys=False)
