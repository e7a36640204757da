"""Random numbers of their own for a while, so that what is drawn aside changes nothing of the training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import set_seed


@contextmanager
def aside(*seed: int) -> Iterator[None]:
    """Draw from generators seeded by ``seed``; afterwards all are as they were before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # the global state is the point
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        set_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002  # likewise
