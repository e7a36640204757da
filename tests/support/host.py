"""What tests do to pods that are processes of this machine: find their supervisor, cut their network, fill their disk.

Where pods run elsewhere (kind, a remote cluster) :func:`supervisor_of` finds nothing, and such a test is skipped.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.env import ENV_POD_UID
from finetune_cluster.home import Home
from finetune_cluster.node.cluster import NodeCluster
from finetune_cluster.node.packages import install_packages
from tests.support.install import cluster_tool
from tests.support.platform import Job, eventually

NOT_HERE = "the pods of this cluster are no processes of this machine"
MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result, what):
    if result:
        raise OSError(ctypes.get_errno(), what)
pid, action, path = sys.argv[1:]
check(libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0), "setns")
if action == "mount":
    check(libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, b"size=64k,mode=1777"), "mount")
else:
    check(libc.umount2(path.encode(), 2), "umount")
"""
"""Run by a process of its own, since a mount namespace is entered for good. 2: MNT_DETACH."""


def supervisor_of(uid: str) -> int | None:
    """A pod's first process on this machine, its supervisor's init; None where pods run elsewhere. Nothing inside a pod can kill it."""
    wanted = f"{ENV_POD_UID}={uid}".encode()
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda e: int(e.name)):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and b"train" in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    return None


def supervisor(job: Job, index: int) -> int:
    """Supervisor of a running pod of a job; skips the test where pods are no processes of this machine."""
    pod = job.kubectl.get("pod", job.pod(index))
    assert pod is not None
    pid = supervisor_of(pod["metadata"]["uid"])
    if pid is None:
        pytest.skip(NOT_HERE if os.geteuid() == 0 else f"{NOT_HERE} that this user may see: run it as root, where the cluster is kind's")
    return pid


def address(job: Job, index: int) -> str:
    """Address of a running pod."""
    pod = job.kubectl.get("pod", job.pod(index))
    assert pod is not None
    return str(pod["status"]["podIP"])


@contextlib.contextmanager
def cut(pid: int, other: str) -> Iterator[None]:
    """No packet passes between a pod and an address while the context lasts, unless the pod ends before."""
    _rules(pid, "-I", other, check=True)
    try:
        yield
    finally:
        _rules(pid, "-D", other, check=Path(f"/proc/{pid}").exists())


@contextlib.contextmanager
def full_disk(pid: int, path: str) -> Iterator[None]:
    """A folder of a pod has no space while the context lasts; what was in it is back afterwards."""
    _mount(pid, "mount", path)
    try:
        yield
    finally:
        _mount(pid, "umount", path)


def restart_runtime() -> None:
    """Kill the node's container runtime and start it again; skips the test where the node is not this machine."""
    node = NodeCluster(Home.of(os.environ))
    if not node.processes.is_alive("containerd"):
        pytest.skip("the container runtime of this cluster is no process of this machine")
    node.processes.stop("containerd", grace_seconds=0)
    cluster_tool("up")


def clock_library() -> bytes:
    """The library that gives a process another time than its machine's (Debian's package faketime)."""
    install_packages({"faketime": "faketime"})
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")).read_bytes()


def told_of_disk(job: Job) -> bool:
    """Whether the job says that a save was skipped for want of space."""
    return "no local space" in job.condition("CheckpointSkipped").get("message", "")


def wait_for_checkpoint(job: Job, beyond: int, within: float = 120) -> int:
    """Wait for a complete checkpoint beyond a step; returns its step."""

    def newest() -> int | None:
        step = int((job.status.get("checkpoints", {}).get("latest") or {}).get("step", 0))
        return step if step > beyond else None

    return eventually(newest, within=within, what=f"a checkpoint of {job.name} beyond step {beyond}")


def _rules(pid: int, action: str, other: str, *, check: bool) -> None:
    for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
        subprocess.run(["nsenter", "-t", str(pid), "-n", "iptables", "-w", action, chain, side, other, "-j", "DROP"], check=check)


def _mount(pid: int, action: str, path: str) -> None:
    subprocess.run([sys.executable, "-c", MOUNT, str(pid), action, path], check=True)


def complete_steps(job: Job, *, attempt: int) -> set[int]:
    """Steps of the checkpoints of an attempt that are complete in the store: those with a manifest."""
    found = (re.fullmatch(rf"a{attempt}/checkpoint-(\d+)/manifest\.json", key) for key in job.objects())
    return {int(match[1]) for match in found if match is not None}
