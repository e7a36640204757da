"""``python -m benchmarks``: all benchmarks that fit the machine, one after the other; those on a cluster only where one runs."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.environment import NoClusterError, kubeconfig

LOCAL = ("overhead", "checkpoint", "throughput", "loading")
ON_CLUSTER = ("startup", "pause", "wave", "progress", "memory")


def main() -> int:
    """Run them; returns the number of those that broke off. A bar that is missed is a figure, not a failure."""
    names = list(LOCAL)
    try:
        kubeconfig()
        names += ON_CLUSTER
    except NoClusterError as error:
        print(f"left out: {', '.join(ON_CLUSTER)} ({error})")
    broken = [name for name in names if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode]
    if broken:
        print(f"broke off: {', '.join(broken)}")
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
