"""The node's network on this machine: a bridge and one rule; and the removal of what Kubernetes adds to them."""

import re
from pathlib import Path

from finetune_cluster.node.layout import BRIDGE, BRIDGE_MAC, NODE_IP, POD_CIDR
from finetune_cluster.shell import run, succeeds

_COMMENT = "finetune-cluster"
_OURS = re.compile(rf"(KUBE-|CNI-HOSTPORT-|CNI-DN-|{_COMMENT})")
_OUR_CHAINS = ("KUBE-", "CNI-HOSTPORT-", "CNI-DN-")
_MASQUERADE = ["POSTROUTING", "-s", POD_CIDR, "!", "-d", POD_CIDR, "-m", "comment", "--comment", _COMMENT, "-j", "MASQUERADE"]


def set_up_network() -> None:
    """Make the bridge, and let pods reach what the machine reaches."""
    if not Path("/proc/sys/net/bridge").exists():
        run(["modprobe", "br_netfilter"])
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge"])
        run(["ip", "address", "add", f"{NODE_IP}/{POD_CIDR.rpartition('/')[2]}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    if not succeeds(["iptables", "-w", "-t", "nat", "-C", *_MASQUERADE]):
        run(["iptables", "-w", "-t", "nat", "-A", *_MASQUERADE])


def tear_down_network() -> None:
    """Remove bridge and rules."""
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "delete", BRIDGE])
    for family in ("iptables", "ip6tables"):
        script = render_removal(run([f"{family}-save"]))
        if script:
            run([f"{family}-restore", "-w", "--noflush"], stdin=script)


def render_removal(saved: str) -> str:
    """Render what makes `iptables-restore --noflush` remove our rules and chains, and nothing else; empty if there are none."""
    output: list[str] = []
    for table, lines in _tables(saved):
        chains = [line[1:].split()[0] for line in lines if line.startswith(":")]
        ours = [chain for chain in chains if chain.startswith(_OUR_CHAINS)]
        rules = [line for line in lines if line.startswith("-A ") and line.split()[1] not in ours and _OURS.search(line)]
        if ours or rules:
            deletions = [f"-D {rule.removeprefix('-A ')}" for rule in rules]
            output += [f"*{table}", *deletions, *(f"-F {chain}" for chain in ours), *(f"-X {chain}" for chain in ours), "COMMIT"]
    return "\n".join(output) + "\n" if output else ""


def _tables(saved: str) -> list[tuple[str, list[str]]]:
    tables: list[tuple[str, list[str]]] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            tables.append((line[1:].strip(), []))
        elif tables and line.startswith((":", "-A ")):
            tables[-1][1].append(line)
    return tables
