"""A worker in an image without bitsandbytes: None is Python's own way to say that a module cannot be imported."""

from __future__ import annotations

import sys

from finetune_trainer.worker.__main__ import main as work


def main() -> int:
    """Run a worker that does not have the library."""
    for name in ("bitsandbytes", *(name for name in sys.modules if name.startswith("bitsandbytes."))):
        sys.modules[name] = None  # type: ignore[assignment]
    return work()
