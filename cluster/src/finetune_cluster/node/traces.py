"""Remembers how the machine was before the node, and puts it back."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

_NEEDED = {"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"}
"""Kernel settings that pods need; through Services they reach each other only if the bridge's traffic passes the rules too."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The places outside of the node's own folders that a node changes."""

    settings: Path = Path("/proc/sys")
    """The kernel's settings."""
    folders: tuple[Path, ...] = (Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log/containers"), Path("/run/containerd"))
    """What Kubernetes programs make whatever folders they are given."""

    def change(self, record: Path) -> None:
        """Set what the node needs. The first time, write down what was there: a record that exists is left as it is."""
        if not record.exists():
            before = {
                "settings": {name: (self.settings / name).read_text().strip() for name in _NEEDED},
                "folders": [str(folder) for folder in self.folders if folder.exists()],
            }
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(before))
        for name, value in _NEEDED.items():
            (self.settings / name).write_text(value)

    def restore(self, record: Path) -> None:
        """Put the kernel settings back and remove the folders that were not there before. Without a record, nothing is touched."""
        if not record.exists():
            return
        before = json.loads(record.read_text())
        for name, value in before["settings"].items():
            (self.settings / name).write_text(value)
        for folder in self.folders:
            if str(folder) not in before["folders"] and folder.exists():
                shutil.rmtree(folder)
        record.unlink()
