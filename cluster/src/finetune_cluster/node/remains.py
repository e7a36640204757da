"""Removes what a node leaves on the machine when its processes are gone: containers, mounts, cgroups, directories."""

import os
import shutil
import signal
import time
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.node.layout import CGROUPS, POD_CGROUP, Layout
from finetune_cluster.node.traces import Machine
from finetune_cluster.shell import succeeds

_KILL_SECONDS = 20.0
_POLL_SECONDS = 0.1


def remove_remains(layout: Layout) -> None:
    """End containers that outlived their runtime, unmount what is mounted, and remove the node's state."""
    _kill_shims(layout)
    _kill_pod_processes()
    _unmount_all([layout.run, layout.home.node, layout.home.containerd])
    _remove_cgroups()
    Machine().restore(layout.traces)
    for path in (layout.run, layout.home.node):
        if path.exists():
            shutil.rmtree(path)


def _unmount_all(folders: list[Path]) -> None:
    """Unmount everything below some folders. A mount may go together with an earlier one: what counts is that none is left."""
    for mount in _mounts(folders):
        succeeds(["umount", "--lazy", mount])
    if left := _mounts(folders):
        raise ClusterError(f"cannot be unmounted: {', '.join(left)}")


def _mounts(folders: list[Path]) -> list[str]:
    return mounts_under(Path("/proc/self/mountinfo").read_text(), folders)


def mounts_under(mountinfo: str, folders: list[Path]) -> list[str]:
    """List the mount points below some folders, the innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    ours = [point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)]
    return sorted(ours, key=lambda point: point.count("/"), reverse=True)


def _kill_shims(layout: Layout) -> None:
    """End the processes between runtime and containers; each carries the address of our runtime in its command line."""
    address = str(layout.containerd_socket).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0].endswith(b"containerd-shim-runc-v2") and address in words:
            _kill(int(process.name))


def _kill_pod_processes() -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while pids := _pod_processes():
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of pods do not end, not even when killed: {sorted(pids)}")
        for pid in pids:
            _kill(pid)
        time.sleep(_POLL_SECONDS)


def _pod_processes() -> set[int]:
    return {int(word) for folder in _pod_cgroups() for file in folder.rglob("cgroup.procs") for word in _read(file).split()}


def _remove_cgroups() -> None:
    for root in _pod_cgroups():
        for folder, _, _ in os.walk(root, topdown=False):
            Path(folder).rmdir()


def _pod_cgroups() -> list[Path]:
    """Find the pods' groups: one per controller in version 1, a single one in version 2."""
    return [path for path in (*CGROUPS.glob(f"*/{POD_CGROUP}"), CGROUPS / POD_CGROUP) if path.is_dir()]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (FileNotFoundError, OSError):
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
