"""How much memory a GPU has."""

from __future__ import annotations

import sys

from finetune_api.resolve import resolve
from finetune_trainer.estimate.gpu import asked_bytes, driver_bytes, gpu_bytes
from tests.support.manifests import spec_of


def test_the_job_says_so() -> None:
    assert asked_bytes(resolve(spec_of({"resources.gpuMemory": "80Gi"})).spec.resources) == 80 * 2**30
    assert gpu_bytes(resolve(spec_of({"resources.gpuMemory": "80Gi", "resources.device": "cpu"})).spec.resources) is None


def test_the_smallest_of_several_counts() -> None:
    assert driver_bytes((sys.executable, "-c", "print('81559\\n40960')")) == 40960 * 2**20


def test_without_a_driver_nobody_knows() -> None:
    assert driver_bytes(("no-such-program",)) is None
    assert driver_bytes((sys.executable, "-c", "print('[N/A]')")) is None
