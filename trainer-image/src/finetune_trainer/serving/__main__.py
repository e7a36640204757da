"""``finetune-trainer serve``: loads what was trained, answers over HTTP, and ends when nobody has asked for a while."""

from __future__ import annotations

import os
import sys

from finetune_trainer.serving.run import run_serve
from finetune_trainer.supervisor.environment import pod_environment
from finetune_trainer.surroundings import raise_limits, trust_ca_bundle


def main() -> int:
    """Serve; returns the exit code."""
    trust_ca_bundle(os.environ)
    raise_limits()
    return run_serve(pod_environment(os.environ))


if __name__ == "__main__":
    sys.exit(main())
