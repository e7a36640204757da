"""Installs the Debian packages the node is made of."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.progress import step
from finetune_cluster.shell import CommandError, run, search_path

Packages = Mapping[str, str]
"""What is needed, by the package that brings it: a program, or the path of a file. Who has it from elsewhere keeps that."""

NODE_PACKAGES: Packages = {
    "containerd": "/usr/bin/containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "iptables": "iptables",
    "mount": "umount",
}
IMAGE_PACKAGES: Packages = {"buildah": "buildah", "debootstrap": "debootstrap"}
_LOCK_SECONDS = 300
_POLICY = Path("/usr/sbin/policy-rc.d")


def can_have(packages: Packages) -> bool:
    """Whether all is installed, or there is what installs it."""
    return shutil.which("apt-get") is not None or not _missing(packages)


def install_packages(packages: Packages) -> None:
    """Install what is missing; no other package is removed for it, and services that come with a package are not started."""
    missing = _missing(packages)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(f"this machine has no apt-get; install by hand: {', '.join(missing)}")
    with step(f"install {', '.join(missing)}"), _services_kept_off():
        try:
            _install(missing)
        except CommandError:
            # The package lists may be missing, or older than the files they speak of; fresh ones settle both.
            run(["apt-get", "update", "--quiet"])
            _install(missing)


def _missing(packages: Packages) -> list[str]:
    return [package for package, needed in packages.items() if shutil.which(needed, path=search_path()) is None]


def _install(names: list[str]) -> None:
    options = ["--option", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", "--yes", "--quiet", "--no-install-recommends", "--no-remove"]
    run(["apt-get", "install", *options, *names], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


@contextlib.contextmanager
def _services_kept_off() -> Iterator[None]:
    """Debian asks this file whether a package may start its service; 101 is no."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
