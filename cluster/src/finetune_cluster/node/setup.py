"""Writes the configuration files of the node's components."""

import json
import re
from pathlib import Path

from finetune_cluster.node.layout import REGISTRY_ADDRESS, Layout
from finetune_cluster.node.settings import (
    build_cni_config,
    build_kubeconfig,
    build_kubelet_config,
    build_proxy_config,
    embed_files,
    render,
    render_containerd_config,
    render_corefile,
    render_registry_hosts,
)

_IDENTITIES = ("controller-manager", "scheduler", "kubelet", "proxy", "dns", "volumes")
_NAME_SERVER = re.compile(r"^\s*nameserver\s", re.MULTILINE)


def write_settings(layout: Layout, pause_image: str) -> None:
    """Write all files. Equal content is written again as it was: programs are restarted by content, not by time."""
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True)
    layout.etcd.chmod(0o700)
    for identity in _IDENTITIES:
        (layout.config / f"{identity}.kubeconfig").write_text(render(build_kubeconfig(layout, identity)))
    _write_private(layout.home.kubeconfig, render(embed_files(build_kubeconfig(layout, "admin"))))
    (layout.config / "kubelet.yaml").write_text(render(build_kubelet_config(layout)))
    (layout.config / "proxy.yaml").write_text(render(build_proxy_config(layout)))
    (layout.config / "containerd.toml").write_text(render_containerd_config(layout, pause_image))
    (layout.config / "Corefile").write_text(render_corefile(layout, has_upstream=_has_name_server()))
    (layout.cni_config / "10-finetune.conflist").write_text(json.dumps(build_cni_config(layout), indent=2))
    hosts = layout.config / "registries" / REGISTRY_ADDRESS
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(render_registry_hosts())


def _write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, in one step: readers see the old or the new one."""
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def _has_name_server() -> bool:
    resolver = Path("/etc/resolv.conf")
    return resolver.exists() and _NAME_SERVER.search(resolver.read_text()) is not None
