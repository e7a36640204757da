"""Where benchmarks run: the cluster of `make cluster` with the chart of this checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def kubeconfig() -> Path:
    """Kubeconfig of the running cluster."""
    done = subprocess.run([sys.executable, "-m", "finetune_cluster", "kubeconfig"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())
