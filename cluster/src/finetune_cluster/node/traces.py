"""Remembers how the machine was before the node, and puts it back."""

import json
import shutil
from pathlib import Path

from finetune_cluster.node.layout import Layout

_SETTINGS = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
"""Kernel settings that pods need; through Services they reach each other only if the bridge's traffic passes the rules too."""
_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log/containers"), Path("/run/containerd"))
"""What Kubernetes programs make outside of the folders they are given."""


def change_machine(layout: Layout) -> None:
    """Set what the node needs; the first time, write down what was there."""
    if not layout.traces.exists():
        before = {
            "settings": {name: _setting(name).read_text().strip() for name in _SETTINGS},
            "folders": [str(folder) for folder in _FOLDERS if folder.exists()],
        }
        layout.traces.parent.mkdir(parents=True, exist_ok=True)
        layout.traces.write_text(json.dumps(before))
    for name, value in _SETTINGS.items():
        _setting(name).write_text(value)


def restore_machine(layout: Layout) -> None:
    """Put the kernel settings back and remove the folders that were not there before."""
    if not layout.traces.exists():
        return
    before = json.loads(layout.traces.read_text())
    for name, value in before["settings"].items():
        _setting(name).write_text(value)
    for folder in _FOLDERS:
        if str(folder) not in before["folders"] and folder.exists():
            shutil.rmtree(folder)
    layout.traces.unlink()


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name
