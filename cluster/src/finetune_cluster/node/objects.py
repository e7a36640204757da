"""Kubernetes objects of the cluster itself: its name service and its storage class."""

from typing import Any

from finetune_cluster.node.layout import DNS_SERVICE_IP, NODE_IP

VOLUME_PROVISIONER = "finetune.dev/directory"
"""The name under which cluster/go/node serves claims."""
_DNS_PORTS = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53))
_DNS_LABELS = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}


def build_cluster_objects() -> dict[str, Any]:
    """Build a list of everything that every cluster has and that no component makes by itself."""
    return {"apiVersion": "v1", "kind": "List", "items": [_dns_service(), _dns_endpoints(), _storage_class()]}


def _dns_service() -> dict[str, Any]:
    """The name server is a process of the node: a Service without selector, and endpoints written by hand."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": _DNS_LABELS},
        "spec": {
            "clusterIP": DNS_SERVICE_IP,
            "ports": [{"name": name, "protocol": protocol, "port": port, "targetPort": port} for name, protocol, port in _DNS_PORTS],
        },
    }


def _dns_endpoints() -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in _DNS_PORTS],
    }


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": VOLUME_PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
