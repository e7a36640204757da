"""The catalogue of GPUs on the command line: what there is, how much of it is free, and jobs that choose a type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.errors import CliError
from finetune_cli.gpus import Supply, render_gpus, supply_of
from tests.unit.finetune_cli.builders import recording_console

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  model: {uri: hf://org/model}
  dataset: {uri: configmap://sft/train.jsonl}
  replicas: 2
  training: {gradAccumSteps: 1}
  resources: {gpuType: h100, gpusPerReplica: 4}
"""
OWN = """\
apiVersion: finetune.dev/v1alpha1
kind: GpuType
metadata: {name: h100}
spec:
  memory: 80Gi
  hourlyRate: "2.50"
  currency: EUR
"""
TYPE: dict[str, Any] = {"memory": "80Gi", "resourceName": "nvidia.com/gpu", "nodeSelector": {"pool": "h100"}, "currency": "USD"}
REGION = "topology.kubernetes.io/region"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(result.exception, CliError):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def node(name: str, gpus: int | None = 8, *, ready: bool = True, cordoned: bool = False, **labels: str) -> dict[str, Any]:
    allocatable = {"cpu": "64", **({"nvidia.com/gpu": str(gpus)} if gpus is not None else {})}
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    spec = {"unschedulable": True} if cordoned else {}
    all_labels = {"pool": "h100", **{key.replace("region", REGION): value for key, value in labels.items()}}
    return {
        "metadata": {"name": name, "labels": all_labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "conditions": conditions},
    }


def pod(on: str | None, *gpus: str, init: str = "0", phase: str = "Running", resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    containers = [{"resources": {"limits": {resource: each}}} for each in gpus]
    first = [{"resources": {"requests": {resource: init}, "limits": {resource: init}}}]
    spec = {"containers": [*containers, {}], "initContainers": first, **({"nodeName": on} if on else {})}
    return {"metadata": {"name": "pod"}, "spec": spec, "status": {"phase": phase}}


def listed(supplies: dict[str, Supply] | None, *gpu_types: dict[str, Any]) -> list[list[str]]:
    """Cells of the table, header first."""
    console = recording_console(width=200)
    console.print(render_gpus(gpu_types, supplies))
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in console.export_text().splitlines()]


def test_free_gpus_are_what_no_pod_asks_for() -> None:
    """L-02, L-06: allocatable less requests of pods that are there; not of those that have ended, nor of other resources."""
    nodes = [node("a"), node("b", 4), node("other", 8, pool="l4"), node("without", None)]
    pods = [
        pod("a", "2", "1"),
        pod("a", "1", init="2"),
        pod("a", "4", phase="Succeeded"),
        pod("b", "4"),
        pod("a", "3", resource="amd.com/gpu"),
        pod(None, "8", phase="Pending"),
        pod("other", "8"),
    ]
    assert supply_of(TYPE, nodes, pods) == Supply(total=12, free=3)
    assert supply_of({"memory": "1Gi"}, nodes, pods) == Supply(total=20, free=3), "a type without a selector has all nodes"
    assert supply_of({**TYPE, "resourceName": "nvidia.com/mig-3g.40gb"}, nodes, pods) == Supply(0, 0)


def test_nodes_that_take_no_pods_have_none_free() -> None:
    nodes = [node("cordoned", cordoned=True), node("lost", ready=False), node("well", 1)]
    assert supply_of(TYPE, nodes, []) == Supply(total=17, free=1)


def test_only_the_regions_of_the_type_count() -> None:
    """L-02."""
    nodes = [node("here", 2, region="eu"), node("there", 4, region="us"), node("nowhere", 8)]
    assert supply_of({**TYPE, "regions": ["eu", "asia"]}, nodes, []) == Supply(2, 2)
    assert supply_of({**TYPE, "regions": []}, nodes, []).total == 14


def test_types_are_listed_with_memory_price_and_supply() -> None:
    """L-02; what is not known is said."""
    own = {"metadata": {"name": "own"}, "spec": {"memory": "16G", "currency": "USD"}}
    spec = {**TYPE, "computeCapability": "9.0", "hourlyRate": "2.50", "regions": ["eu", "us"], "description": "Cellar"}
    header, h100, unknown = listed({"own": Supply(0, 0), "h100": Supply(16, 3)}, own, {"metadata": {"name": "h100"}, "spec": spec})
    assert header == ["NAME", "MEMORY", "CAPABILITY", "GPU HOUR", "TOTAL", "FREE", "REGIONS", "DESCRIPTION"]
    assert h100 == ["h100", "80.0 GiB", "9.0", "2.50 USD", "16", "3", "eu, us", "Cellar"]
    assert unknown == ["own", "14.9 GiB", "?", "?", "0", "0", "all"]
    assert listed(None, own)[1] == ["own", "14.9 GiB", "?", "?", "?", "?", "all"]


class Catalogue:
    """A cluster with these GpuTypes, nodes and pods."""

    def __init__(self, gpu_types: list[dict[str, Any]], seen: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None) -> None:
        self._gpu_types, self._seen = gpu_types, seen

    def gpu_types(self) -> list[dict[str, Any]]:
        return self._gpu_types

    def nodes_and_pods(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        return self._seen


def test_the_command_lists_those_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """L-02; who may not list nodes is told so, and sees the rest."""
    h100 = {"metadata": {"name": "h100"}, "spec": TYPE}
    monkeypatch.setattr(Access, "connect", lambda _: Catalogue([h100], ([node("a")], [pod("a", "3")])))
    code, output, _ = run("gpus")
    assert (code, output.splitlines()[1].split()) == (0, ["h100", "80.0", "GiB", "?", "?", "8", "5", "all"])
    monkeypatch.setattr(Access, "connect", lambda _: Catalogue([h100], None))
    code, output, told = run("gpus")
    assert (code, output.splitlines()[1].split()) == (0, ["h100", "80.0", "GiB", "?", "?", "?", "?", "all"])
    assert "you may not list the nodes and pods of the cluster" in told
    monkeypatch.setattr(Access, "connect", lambda _: Catalogue([], ([], [])))
    with pytest.raises(CliError, match="the cluster has no GpuTypes"):
        run("gpus")


def test_plan_shows_the_gpus_of_a_job(manifest: Path, tmp_path: Path) -> None:
    """A-04, L-02: shipped types are known without a cluster; a file with prices wins over them."""
    code, output, _ = run("plan", "-f", manifest)
    assert code == 0
    assert "GpuType h100: 79.6 GiB each; compute capability 9.0; price not known" in output
    line = next(line for line in output.splitlines() if line.startswith("resources.gpuMemory"))
    assert line.split() == ["resources.gpuMemory", "81559Mi", "GpuType", "h100"]
    own = tmp_path / "own.yaml"
    own.write_text(OWN)
    _, output, _ = run("plan", "-f", manifest, "--gpu-type-file", own)
    assert "GpuType h100: 80.0 GiB each; 2.50 EUR per GPU hour, 20.00 EUR for an hour of all 8" in output
    values = json.loads(run("plan", "-f", manifest, "-o", "json")[1])
    assert values["resources.gpuMemory"] == {"value": "81559Mi", "source": "gpuType"}


def test_an_unknown_type_is_named_with_the_nearest(manifest: Path) -> None:
    """L-02."""
    manifest.write_text(JOB.replace("gpuType: h100", "gpuType: h1000"))
    with pytest.raises(CliError, match=r"spec\.resources\.gpuType: h1000: there is no GpuType of this name; the nearest are h100, h200"):
        run("validate", "-f", manifest)


def test_job_and_type_are_judged_together(manifest: Path) -> None:
    """L-02, AC-23: by the operator's own rules; a type beside the job counts."""
    manifest.write_text(
        JOB.replace("gpuType: h100", "gpuType: t4, nodeSelector: {nvidia.com/gpu.product: NVIDIA-L4}") + "  precision: {bf16: true}\n"
    )
    code, output, _ = run("validate", "-f", manifest)
    assert code == 1
    assert "spec.resources.nodeSelector: nvidia.com/gpu.product is NVIDIA-L4, and nodes of GpuType t4 have Tesla-T4" in output
    assert "spec.precision.bf16: GpuType t4 has compute capability 7.5" in output
    manifest.write_text(f"{JOB}---\n{OWN.replace('80Gi', '80 GB')}")
    assert "spec.memory" in run("validate", "-f", manifest)[1]


def test_every_shipped_type_is_known_here(manifest: Path) -> None:
    for name in SHIPPED_GPU_TYPES:
        manifest.write_text(JOB.replace("gpuType: h100", f"gpuType: {name}"))
        assert run("validate", "-f", manifest)[0] == 0
