"""Flux: its own kstatus and expression libraries on jobs of every phase."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.lifecycle import PHASES, Health
from finetune_api.models.status import Phase
from tests.support.fake_api import Manifest, merge
from tests.support.gitops import Judge
from tests.support.phases import RECORDS, written

FLUX = Path(__file__).parents[3] / "deploy" / "flux"
KSTATUS = {Health.CURRENT: "Current", Health.IN_PROGRESS: "InProgress", Health.FAILED: "Failed"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def until_trained() -> Manifest:
    """The expressions of the example."""
    (entry,) = read(FLUX / "kustomization-until-trained.yaml")["spec"]["healthCheckExprs"]
    assert (entry.pop("apiVersion"), entry.pop("kind")) == ("finetune.dev/v1alpha1", "FineTuneJob")
    return dict(entry)


@pytest.mark.parametrize("phase", Phase)
def test_kstatus_of_every_phase(judge: Judge, phase: Phase) -> None:
    """Plain `wait: true`, helm --wait: Ready while training, queued, paused; Stalled is failed; the operator's own work is progress."""
    assert judge.kstatus(written(phase)) == KSTATUS[PHASES[phase].health]


def test_kstatus_of_jobs_as_they_live(judge: Judge, jobs: Mapping[str, Manifest]) -> None:
    """Jobs of the present operator and recorded ones alike; a generation nobody has looked at is never Current."""
    found = {name: judge.kstatus(manifest) for name, manifest in jobs.items()}
    assert found == {name: judge.kstatus(read(RECORDS / f"{name}.yaml")) for name in jobs}
    assert found["stale"] == "InProgress"
    assert (found["paused"], found["queued"], found["refused-edit"], found["failed"]) == ("Current", "Current", "Failed", "Failed")


def test_a_job_nobody_has_looked_at_yet(judge: Judge, jobs: Mapping[str, Manifest], until_trained: Manifest) -> None:
    """The schema gives it a status: an operator that is away is no reason to go on."""
    assert judge.kstatus(jobs["new"]) == "InProgress"
    assert judge.expressions(until_trained, jobs["new"]) == "InProgress"


@pytest.mark.parametrize("phase", Phase)
def test_until_trained(judge: Judge, until_trained: Manifest, phase: Phase) -> None:
    """Current means trained; failed, refused and cancelled jobs end the wait."""
    failed = PHASES[phase].health is Health.FAILED or phase is Phase.CANCELLED
    expected = "Current" if phase is Phase.SUCCEEDED else "Failed" if failed else "InProgress"
    assert judge.expressions(until_trained, written(phase)) == expected


@pytest.mark.parametrize(
    "missing", [{"conditions": None}, {"phase": None}, {"conditions": None, "phase": None, "observedGeneration": None}]
)
def test_expressions_are_null_safe(judge: Judge, until_trained: Manifest, missing: Mapping[str, None]) -> None:
    assert judge.expressions(until_trained, merge(written(Phase.TRAINING), {"status": missing})) == "InProgress"


def test_a_stale_success_does_not_count(judge: Judge, jobs: Mapping[str, Manifest], until_trained: Manifest) -> None:
    newer = merge(jobs["succeeded"], {"metadata": {"generation": 9}})
    assert judge.expressions(until_trained, newer) == "InProgress"


def test_the_examples_are_flux_objects() -> None:
    """Kinds and versions of Flux 2, no field that waits for ever."""
    for path in FLUX.glob("kustomization*.yaml"):
        document = read(path)
        assert document["apiVersion"] == "kustomize.toolkit.fluxcd.io/v1"
        assert document["spec"]["wait"] is True
        assert document["spec"]["timeout"]
        source = read(FLUX / "gitrepository.yaml")
        assert document["spec"]["sourceRef"] == {"kind": source["kind"], "name": source["metadata"]["name"]}
        assert document["metadata"]["namespace"] == source["metadata"]["namespace"]
    assert read(FLUX / "helmrelease.yaml")["apiVersion"] == "helm.toolkit.fluxcd.io/v2"
