"""What users and the operator see of the CRDs on a real API server: explain, columns, scale, status, what is stored and what is final."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import KIND
from finetune_api.describe import describe_meaning
from finetune_api.models.status import FineTuneJobStatus, Phase
from finetune_api.resolve import flatten, resolve
from finetune_api.schema import JSON, structural
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.manifests import SHIPPED, accepted, job_of
from tests.support.platform import eventually

pytestmark = pytest.mark.integration


def create(api: ApiServer, name: str, **leaves: Any) -> dict[str, Any]:
    """Store a job and return it as stored."""
    answer = api.request("POST", api.path(KIND), job_of(name, {path.replace("__", "."): value for path, value in leaves.items()}))
    assert answer.code == 201, answer.message
    return answer.body


def test_explain_shows_unit_range_and_defaults(kubeconfig: Path, crds: None) -> None:
    """F-33: default, recommended and permissible values side by side."""
    text = " ".join(explain(kubeconfig, "ftj.spec.training.batchSize").split())
    assert "Unit: rows per device. Range: 1 to 128. Default: 2; " in text
    assert "8 in fastest, 1 in throughput, 1 in quick-test, by GPU memory in auto. Recommended: 1-2 at 4 GB" in text
    block = explain(kubeconfig, "ftj.spec.training")
    assert all(field in block for field in ("learningRate", "warmupRatio", "optimizer", "enum: adamw_torch"))


@pytest.mark.parametrize("short", ["ftp", "cftp"])
def test_presets_explain_themselves(kubeconfig: Path, crds: None, short: str) -> None:
    assert "Learning rate schedule" in explain(kubeconfig, f"{short}.spec.training")


def test_nothing_of_a_preset_or_the_defaults_is_stored(api: ApiServer) -> None:
    """Design: a schema default would always beat a preset, so that only fields no preset may set have one."""
    stored = create(api, "sparse", presetRef__name="lora-chat")
    assert flatten(stored["spec"]) == {
        "model.uri": "hf://org/model",
        "dataset.uri": "hf://org/data",
        "presetRef.name": "lora-chat",
        "replicas": 1,
        "suspend": False,
        "desiredState": "Running",
        "pausePolicy.timeoutSeconds": 600,
        "pausePolicy.ifUnsaved": "Wait",
        "pausePolicy.graceSeconds": 120,
        "retry.limit": 3,
        "retry.backoffSeconds": 10,
        "retry.onDivergence": "fail",
        "retry.onStall": "restart",
        "retry.stallSeconds": 900,
    }
    preset = next(case.document["spec"] for case in accepted(SHIPPED) if case.file.stem == "lora-chat")
    resolution = resolve(stored["spec"], preset)
    assert {path for path, source in resolution.sources.items() if source == "preset"} == set(flatten(preset))


def test_scale_reads_and_writes_replicas(api: ApiServer) -> None:
    """Q-10: pause and resume by scaling to zero and back."""
    create(api, "scaled", replicas=2)
    status = {"status": {"replicas": 2, "selector": "finetune.dev/job=scaled"}}
    assert api.request("PATCH", api.path(KIND, "scaled", "status"), status).code == 200
    scale = api.request("GET", api.path(KIND, "scaled", "scale")).body
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 2, "selector": "finetune.dev/job=scaled"})
    assert api.request("PATCH", api.path(KIND, "scaled", "scale"), {"spec": {"replicas": 0}}).code == 200
    assert api.request("GET", api.path(KIND, "scaled")).body["spec"]["replicas"] == 0


def test_scale_keeps_the_rules(api: ApiServer) -> None:
    """X34: several pods that do not work together would train the same thing several times."""
    create(api, "single", distributed__strategy="none")
    answer = api.request("PATCH", api.path(KIND, "single", "scale"), {"spec": {"replicas": 2}})
    assert answer.code == 422
    assert "none is for a single rank" in answer.message


@pytest.mark.parametrize("wish", ["Running", "Stopped", None])
def test_cancelled_is_never_left(api: ApiServer, wish: str | None) -> None:
    """Q-07: cancel is for good, also when the field is removed."""
    name = f"cancelled-{str(wish).lower()}"
    create(api, name)
    assert api.request("PATCH", api.path(KIND, name), {"spec": {"desiredState": "Cancelled"}}).code == 200
    answer = api.request("PATCH", api.path(KIND, name), {"spec": {"desiredState": wish}})
    assert answer.code == 422
    assert "Cancelled is final" in answer.message


def test_stopped_can_be_left(api: ApiServer) -> None:
    """Q-06"""
    create(api, "stopped", desiredState="Stopped")
    assert api.request("PATCH", api.path(KIND, "stopped"), {"spec": {"desiredState": "Running"}}).code == 200


def test_status_is_stored_whole(api: ApiServer) -> None:
    """Every field of the status model is in the schema, so that nothing is pruned."""
    create(api, "reported")
    status = sample(structural(FineTuneJobStatus, describe_meaning))
    answer = api.request("PATCH", api.path(KIND, "reported", "status"), {"status": status})
    assert answer.code == 200, answer.message
    assert answer.body["status"] == status
    parsed = FineTuneJobStatus.model_validate(answer.body["status"])
    assert parsed.model_dump(mode="json", by_alias=True, exclude_none=True) == status


def test_status_is_written_only_through_its_subresource(api: ApiServer) -> None:
    create(api, "honest")
    assert api.request("PATCH", api.path(KIND, "honest"), {"status": {"phase": Phase.SUCCEEDED}}).code == 200
    assert api.request("GET", api.path(KIND, "honest")).body["status"]["phase"] != Phase.SUCCEEDED


def test_a_new_job_is_not_ready(api: ApiServer) -> None:
    """Nobody may have looked at it (the operator is away): Ready is Unknown from the first moment, so that no tool takes it for healthy."""
    status = create(api, "unseen")["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Ready": "Unknown", "Reconciling": "True"}
    assert (status["phase"], "observedGeneration" in status) == ("Pending", False)


def test_columns_and_phase_selector(api: ApiServer, kubeconfig: Path) -> None:
    """A-09"""
    create(api, "listed")
    progress = {"percent": 41, "step": 37, "loss": 2.25, "eta": "1m12s", "learningRate": 0.0002}
    status = {"phase": Phase.TRAINING, "reason": "Healthy", "method": "sft", "gpus": 8, "attemptCount": 2, "lastReplicas": 1}
    status |= {"progress": progress, "usage": {"cost": "12.3456"}}

    def listed() -> list[str]:
        """Header and row; an operator in the same cluster may have written its own status in between."""
        assert api.request("PATCH", api.path(KIND, "listed", "status"), {"status": status}).code == 200
        return get_table(kubeconfig, "-n", api.namespace, "ftj", "--field-selector=status.phase=Training", "-o", "wide").splitlines()

    header, row = eventually(listed, within=30, what="a job in phase Training")
    assert header.split()[:10] == ["NAME", "PHASE", "METHOD", "PROGRESS%", "STEP", "LOSS", "ETA", "ATTEMPTS", "GPUS", "AGE"]
    assert header.split()[10:] == ["REASON", "MODEL", "DATASET", "LAST-REPLICAS", "LR", "COST"]
    cells = row.split()
    assert cells[:9] == ["listed", "Training", "sft", "41", "37", "2.25", "1m12s", "2", "8"]
    assert cells[10:] == ["Healthy", "hf://org/model", "hf://org/data", "1", "0.0002", "12.3456"]


def test_category_lists_jobs_and_presets(api: ApiServer, kubeconfig: Path) -> None:
    create(api, "in-category")
    preset = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTunePreset", "metadata": {"name": "in-category"}, "spec": {}}
    assert api.request("POST", api.path("FineTunePreset"), preset).code == 201
    listed = get_table(kubeconfig, "-n", api.namespace, "ml", "-o", "name")
    assert {"finetunejob.finetune.dev/in-category", "finetunepreset.finetune.dev/in-category"} <= set(listed.split())


def test_unchanged_objects_survive_a_second_apply(api: ApiServer) -> None:
    """What is stored, sent back as it is, is accepted: rules hold for the stored form too."""
    stored = create(api, "again", presetRef__name="sft", training__learningRate=0.0005)
    answer = api.request("PUT", api.path(KIND, "again"), stored)
    assert answer.code == 200, answer.message
    assert answer.body["spec"] == stored["spec"]


def sample(schema: JSON) -> Any:
    """A value for a structural schema in which every field is there."""
    if "enum" in schema:
        return schema["enum"][-1]
    match schema["type"]:
        case "object" if "properties" in schema:
            return {name: sample(child) for name, child in schema["properties"].items()}
        case "object":
            return {"key": sample(schema["additionalProperties"])}
        case "array":
            return [sample(schema["items"])]
        case "string":
            return "2026-11-21T08:00:00Z" if schema.get("format") == "date-time" else "text"
        case "integer":
            return 7
        case "number":
            return 0.5
        case _:
            return True
