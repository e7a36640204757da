"""preflight: a checkpoint of another job is judged before a GPU is taken (R-10, AC-08)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import Manifest, StoredFile
from finetune_trainer.store.local import LocalStore
from finetune_trainer.verbs.preflight import run_preflight
from tests.unit.finetune_trainer.verbs.conftest import VerbPod

NAMES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth")
FROM = "pvc://old/output/checkpoint-7"


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "contract_version": CONTRACT_VERSION,
        "attempt": 1,
        "step": 7,
        "total_steps": 10,
        "epoch": 0.7,
        "created_at": "2026-11-01T00:00:00Z",
        "trigger": "steps",
        "kind": "lora",
        "strategy": "none",
        "world_size": 1,
        "pods": 1,
        "global_batch": 4,
        "files": [StoredFile(path=name, size=1, sha256=hashlib.sha256(b"x").hexdigest()) for name in NAMES],
    }
    return Manifest.model_validate(values | changes)


@pytest.fixture
def checkpoint(verb_pod: VerbPod) -> Path:
    """One of another job, whole."""
    directory = verb_pod.directory / "pvc/old/output/checkpoint-7"
    directory.mkdir(parents=True)
    for name in NAMES:
        (directory / name).write_bytes(b"x")
    (directory / "manifest.json").write_text(manifest().to_json())
    return directory


def examine(pod: VerbPod, **changes: Any) -> str:
    """What is said against it; empty: nothing."""
    code = run_preflight(pod.environment({"checkpoint": {"resumeFrom": FROM}, **changes}))
    assert (code == 0) is (pod.message.failure_class is None)
    return pod.message.message if code else ""


def test_a_whole_one_is_taken(verb_pod: VerbPod, checkpoint: Path) -> None:
    assert examine(verb_pod) == ""
    assert not any(warning.startswith("ForeignCheckpoint") for warning in verb_pod.message.warnings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resumable": False}, "it keeps its weights only"),
        ({"kind": "full"}, "it is a full checkpoint, adapter.type is lora"),
        ({"strategy": "zero2"}, "it was written with distributed.strategy zero2, and this job's is none, which cannot read it"),
        ({"files": [file.model_dump() for file in manifest().files if file.path != "rng_state.pth"]}, "rng_state.pth is missing"),
    ],
)
def test_one_of_no_use_to_this_job_is_refused(verb_pod: VerbPod, checkpoint: Path, changes: dict[str, Any], said: str) -> None:
    (checkpoint / "manifest.json").write_text(manifest(**changes).to_json())
    assert examine(verb_pod).startswith(f"checkpoint.resumeFrom: {FROM} cannot be used: {said}")
    assert verb_pod.message.failure_class is FailureClass.CHECKPOINT_INCOMPLETE


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_files_are_checked_by_their_digests(verb_pod: VerbPod, checkpoint: Path, damage: str) -> None:
    (checkpoint / "optimizer.pt").unlink()
    if damage == "damaged":
        (checkpoint / "optimizer.pt").write_bytes(b"y")
    assert f"cannot be used: optimizer.pt is {damage}" in examine(verb_pod)


def test_another_global_batch_is_refused(verb_pod: VerbPod, checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text(manifest(global_batch=6).to_json())
    assert "but the checkpoint was trained with a global batch of 6: with 1 ranks use" in examine(verb_pod)
    assert verb_pod.message.failure_class is FailureClass.CONFIGURATION


def test_another_number_of_ranks_is_refused_for_zero(verb_pod: VerbPod, checkpoint: Path) -> None:
    """L-07: its parts fit the number of ranks that wrote them."""
    (checkpoint / "manifest.json").write_text(manifest(strategy="zero2", world_size=2, global_batch=12).to_json())
    assert "written with distributed.strategy zero2 by 2 ranks, now there are 3" in examine(
        verb_pod, replicas=3, distributed={"strategy": "zero2"}, training={"batchSize": 2, "gradAccumSteps": 2}
    )


def test_a_checkpoint_of_the_job_itself(verb_pod: VerbPod) -> None:
    """AC-08: by its name; its batch is judged too."""
    store = LocalStore(verb_pod.directory / "store/team/job")
    prefix = "a1/checkpoint-7"
    for name in NAMES:
        store.put(f"{prefix}/{name}", b"x")
    store.put(f"{prefix}/manifest.json", manifest(global_batch=6).to_json().encode())
    code = run_preflight(verb_pod.environment({"checkpoint": {"resumeFrom": "checkpoint-7"}}))
    assert code != 0
    assert "with a global batch of 6" in verb_pod.message.message, json.dumps(sorted(str(key) for key in store.list()))


def test_a_plain_checkpoint_for_another_strategy(verb_pod: VerbPod, checkpoint: Path) -> None:
    """R-10: whole copies only; a job on several ranks by ZeRO cannot read it."""
    (checkpoint / "manifest.json").unlink()
    said = examine(verb_pod, replicas=2, distributed={"strategy": "zero2"})
    assert "has a whole optimizer (optimizer.pt), which distributed.strategy zero2 cannot read; set it to ddp" in said
