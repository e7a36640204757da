"""GpuTypes: what a job gets from the one it names, what the two contradict each other in, what their time costs, those that are shipped."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.catalogue import gpu_type_problems, unknown_gpu_type
from finetune_api.constants import LABEL_REGION
from finetune_api.gpu_types import PRODUCT_LABEL, SHIPPED_GPU_TYPES
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.partial import validate_gpu_type, validate_job
from finetune_api.pricing import charge, hourly_cost
from finetune_api.problems import SpecError
from finetune_api.quantities import number_of
from finetune_api.resolve import Resolution, chosen_gpu_type, resolve
from finetune_api.rules import check_resolved
from tests.support.manifests import spec_of

TYPE: dict[str, Any] = {"memory": "80Gi", "computeCapability": "9.0", "nodeSelector": {"pool": "h100"}, "regions": ["eu-west-1"]}


def resolved(leaves: dict[str, Any], preset: dict[str, Any] | None = None) -> Resolution:
    """A job on GPUs of a type."""
    return resolve(spec_of({"resources.gpuType": "h100", **leaves}), preset, gpu_type=TYPE)


def problems(leaves: dict[str, Any], **gpu_type: Any) -> list[tuple[str, str]]:
    """Path and message of what is wrong with a job and its type together."""
    known = GpuTypeSpec.model_validate({**TYPE, **gpu_type})
    return [(problem.path, problem.message) for problem in gpu_type_problems("h100", known, resolved(leaves).spec)]


@pytest.mark.parametrize(
    ("job", "preset", "name"),
    [
        ({}, {}, None),
        ({"gpuType": "a"}, {}, "a"),
        ({"gpuType": "a"}, {"gpuType": "b"}, "a"),
        ({}, {"gpuType": "b"}, "b"),
        ({"device": "gpu"}, {"gpuType": "b"}, "b"),
        ({"device": "cpu"}, {"gpuType": "b"}, None),
    ],
)
def test_the_type_a_job_chooses(job: dict[str, Any], preset: dict[str, Any], name: str | None) -> None:
    """L-02: job before preset; a job on CPU takes no GPUs of its preset."""
    assert chosen_gpu_type({"resources": job}, {"resources": preset}) == name


def test_the_memory_is_that_of_the_type() -> None:
    """N-01: preflight and plan know it, with its source; what the job says itself wins, what a preset says of another type does not."""
    resolution = resolved({}, {"resources": {"gpuMemory": "16Gi"}})
    assert (resolution.spec.resources.gpu_memory, resolution.sources["resources.gpuMemory"]) == ("80Gi", "gpuType")
    assert resolved({"resources.gpuMemory": "40Gi"}).spec.resources.gpu_memory == "40Gi"
    of_preset = resolve(spec_of({}), {"resources": {"gpuType": "l4", "gpuMemory": "20Gi"}}, gpu_type=TYPE)
    assert (of_preset.spec.resources.gpu_memory, of_preset.sources["resources.gpuMemory"]) == ("20Gi", "preset")


def test_a_preset_for_gpus_serves_a_job_on_cpu() -> None:
    """L-01."""
    resolution = resolve(spec_of({"resources.device": "cpu"}), {"resources": {"gpuType": "h100", "gpusPerReplica": 4}})
    assert (resolution.spec.resources.gpu_type, check_resolved(resolution)) == (None, [])


def test_job_and_preset_contradict_each_other_by_name() -> None:
    """L-01: a preset that trains on CPU has no GPUs to choose."""
    (problem,) = check_resolved(resolved({}, {"resources": {"device": "cpu"}}))
    assert (problem.path, problem.value) == ("spec.resources.gpuType", "h100")


def test_a_label_with_another_value_is_refused_by_name() -> None:
    assert problems({"resources.nodeSelector": {"pool": "h100", "disk": "fast", LABEL_REGION: "eu-west-1"}}) == []
    assert problems({"resources.nodeSelector": {"pool": "a100"}}) == [
        (
            "spec.resources.nodeSelector",
            "pool is a100, and nodes of GpuType h100 have h100; leave the label out, or choose another gpuType",
        )
    ]
    assert problems({"resources.nodeSelector": {LABEL_REGION: "us-east-1"}}) == [
        ("spec.resources.nodeSelector", f"{LABEL_REGION} is us-east-1, and GpuType h100 is in eu-west-1; choose one of these")
    ]
    assert problems({"resources.nodeSelector": {LABEL_REGION: "us-east-1"}}, regions=[]) == []


@pytest.mark.parametrize(
    ("path", "value"), [("precision.bf16", True), ("precision.tf32", True), ("precision.dtype", "bfloat16"), ("precision.fp16", True)]
)
def test_numbers_that_gpus_before_ampere_do_not_have(path: str, value: object) -> None:
    """AC-23: refused before a GPU is asked for; those of later GPUs, and where the capability is not known, are not."""
    refused = path != "precision.fp16"
    found = problems({path: value}, computeCapability="7.5")
    assert [where for where, _ in found] == ([f"spec.{path}"] if refused else [])
    assert all("GpuType h100 has compute capability 7.5, older than Ampere (8.0)" in message for _, message in found)
    for capability in ("8.0", "9.0", "12.0", None):
        assert problems({path: value}, computeCapability=capability) == []


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    """L-02."""
    problem = unknown_gpu_type("h10", ["t4", "l4", "h100", "h200", "a100-80"])
    assert str(problem).startswith("spec.resources.gpuType: h10: there is no GpuType of this name; the nearest are h100, h200, ")
    assert "the catalogue is empty" in str(unknown_gpu_type("h10", []))


def test_costs_are_exact() -> None:
    """L-02: decimal numbers, so that many small sums are the large one."""
    charged = None
    for _ in range(36_000):
        charged = charge(charged.rate_seconds if charged is not None else None, 0.1, "0.1")
    assert charged is not None
    assert charged == ("360", "0.1000") == charge(None, 3600, "0.1")
    assert charge(None, 5, "2.5").cost == "0.0035"
    assert charge("1000000000.07", 0.0, "2").rate_seconds == "1000000000.07"
    assert charge(None, 0.0, "2") == ("0", "0.0000")
    assert hourly_cost("2.50", 4) == "10.00"


def test_a_price_in_numbers_is_told_to_be_a_text() -> None:
    with pytest.raises(SpecError, match=r"spec\.hourlyRate: 2\.5 should be a text \(in quotes"):
        validate_gpu_type({"memory": "80Gi", "hourlyRate": 2.5})
    with pytest.raises(SpecError, match=r'spec\.hourlyRate: "2,5" should be a price such as "2\.50"'):
        validate_gpu_type({"memory": "80Gi", "hourlyRate": "2,5"})


@pytest.mark.parametrize("name", SHIPPED_GPU_TYPES)
def test_every_shipped_type_can_be_chosen(name: str) -> None:
    """L-02: found by the label of GPU feature discovery, no price; memory is what the name says, less what the driver keeps."""
    spec = SHIPPED_GPU_TYPES[name]
    validate_gpu_type(spec)
    validate_job(spec_of({"resources.gpuType": name}))
    assert set(spec["nodeSelector"]) == {PRODUCT_LABEL}
    assert "hourlyRate" not in spec
    told = float(spec["description"].partition(" GB")[0].rpartition(" ")[2])
    assert number_of(spec["memory"]) / 2**30 == pytest.approx(told, rel=0.08)
