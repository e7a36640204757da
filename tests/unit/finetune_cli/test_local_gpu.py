"""The preset auto on this machine: it goes by what nvidia-smi tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_cli.local.gpu import gpu_memory, resolve_here
from finetune_cli.manifest import Document, presets_of, read_job

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  presetRef: {name: auto}
  model: {uri: s3://finetune/models/tiny}
  dataset: {uri: configmap://sft/train.jsonl}
"""


@pytest.fixture
def job(tmp_path: Path) -> Document:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return read_job(path)


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi, and nothing else on PATH."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def test_the_smallest_gpu_counts(job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K-11: the batch has to fit each of them."""
    install(tmp_path, "echo 24564; echo 12288", monkeypatch)
    resolution = resolve_here(job, presets_of([]), None)
    assert (resolution.spec.resources.gpu_memory, resolution.spec.training.batch_size) == ("12288Mi", 2)
    assert resolution.reasons["training.batchSize"] == "12288Mi of GPU memory (8 to below 16 GiB)"


@pytest.mark.parametrize("script", ["exit 9", "echo [N/A]", ""])
def test_what_nvidia_smi_does_not_know_is_said(script: str, job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, script, monkeypatch)
    assert gpu_memory() is None
    resolution = resolve_here(job, presets_of([]), None)
    assert resolution.spec.training.batch_size == 1
    assert any("the memory of the GPUs is not known" in note for note in resolution.notes)


def test_without_nvidia_smi_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory() is None


def test_on_cpu_nobody_asks(job: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "echo 24564", monkeypatch)
    assert resolve_here(job, presets_of([]), "cpu").spec.resources.gpu_memory is None
