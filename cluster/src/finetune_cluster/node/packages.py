"""Installs the Debian packages the node is made of."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from finetune_cluster.errors import ClusterError
from finetune_cluster.progress import step
from finetune_cluster.shell import CommandError, run, succeeds

NODE_PACKAGES = ("containerd", "runc", "containernetworking-plugins", "conntrack", "iproute2", "iptables", "mount")
IMAGE_PACKAGES = ("buildah", "debootstrap")
_LOCK_SECONDS = 300
_POLICY = Path("/usr/sbin/policy-rc.d")


def install_packages(names: tuple[str, ...]) -> None:
    """Install what is missing; services that come with a package are not started."""
    if shutil.which("apt-get") is None:
        raise ClusterError(f"this machine has no apt-get; install by hand: {', '.join(names)}")
    missing = [name for name in names if not _is_installed(name)]
    if not missing:
        return
    with step(f"install {', '.join(missing)}"), _services_kept_off():
        try:
            _install(missing)
        except CommandError:
            # The package lists may be missing, or older than the files they speak of; fresh ones settle both.
            run(["apt-get", "update", "--quiet"])
            _install(missing)


def _is_installed(name: str) -> bool:
    return succeeds(["dpkg-query", "--show", name]) and "ok installed" in run(["dpkg-query", "--show", "--showformat=${Status}", name])


def _install(names: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(
        ["apt-get", "install", "--option", f"DPkg::Lock::Timeout={_LOCK_SECONDS}", "--yes", "--quiet", "--no-install-recommends", *names],
        env=environment,
    )


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
