"""etcd writes cost what the object weighs: the status stays small however long a job lives (design §3: ≤ 8 KB in use)."""

from __future__ import annotations

import json

from finetune_api.contract.failures import EXIT_USER_ERROR, FailureClass
from finetune_api.models.status import AttemptStatus, CheckpointsStatus, CheckpointStatus, FailureStatus
from finetune_operator.plan.document import status_document
from tests.support.operator_cluster import FakeCluster

OUTPUT = "s3://finetune/research-team/sft-support-assistant/d75d126b-8ed6-43e1-8611-6638ff6c2d84"
FACTS = {
    "autocast": "no", "datasetDigest": "8" * 64, "dtype": "float32", "effectiveBatchSize": "8", "evalRows": "47", "modelRevision": "3" * 64,
    "outputUse": "last", "scaling": "2", "stepsPerEpoch": "54", "stopBy": "steps", "strategy": "none",
    "targetModules": "down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj", "totalParameters": "8597760", "totalSteps": "90",
    "trainRows": "427", "trainableParameters": "598016", "warmupSteps": "5",
}  # fmt: skip


def weight(document: object) -> int:
    return len(json.dumps(document, separators=(",", ":")))


def checkpoint(attempt: int, step: int) -> CheckpointStatus:
    return CheckpointStatus(
        step=step, attempt=attempt, uri=f"{OUTPUT}/a{attempt}/checkpoint-{step}", size_bytes=7_580_895, created_at="2026-11-21T10:29:40Z",
        trigger="steps", eval_loss=6.59351,
    )  # fmt: skip


def attempt(number: int) -> AttemptStatus:
    return AttemptStatus(
        run=number, attempt=number, reason="Resumed", started_at="2026-11-21T10:27:42Z", ended_at="2026-11-21T10:28:42Z",
        from_step=number * 100, to_step=number * 100 + 100, outcome="Paused",
    )  # fmt: skip


async def lived(attempts: int) -> dict[str, object]:
    """The stored status of a job with all defaults, in its n-th attempt, with a full ledger."""
    cluster = FakeCluster(name="sft-support-assistant")
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=25)
    recent = [checkpoint(attempts, 100 * number) for number in range(1, 6)]
    status = cluster.status.model_copy(
        update={
            "attempts": [attempt(number) for number in range(1, attempts + 1)],
            "attempt_count": attempts,
            "facts": FACTS,
            "output_uri": OUTPUT,
            "checkpoints": CheckpointsStatus(latest=recent[-1], best=recent[-1], recent=recent),
        }
    )
    return {**status_document(status), "progress": cluster.manifest["status"]["progress"]}


async def test_a_job_in_use_weighs_at_most_8_kb() -> None:
    """All defaults (nothing written but model and dataset), five checkpoints, four attempts."""
    assert weight(await lived(4)) <= 8192


async def test_a_long_life_and_a_failure_add_little() -> None:
    """Ten attempts, 2 KB of log lines, a full failure."""
    failure = FailureStatus(
        failure_class=FailureClass.DATA, message="m" * 1024, exit_code=EXIT_USER_ERROR, last_log_lines="l" * 2048, advice="a" * 200, run=10
    )
    document = {**await lived(10), "failure": failure.model_dump(mode="json", by_alias=True)}
    assert weight(document) <= 13_000


async def test_a_merged_report_leaves_status_progress() -> None:
    """What the status holds is not repeated in the report."""
    cluster = FakeCluster()
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training" and cluster.status.checkpoints.latest is not None, train=25)
    await cluster.train(1)
    await cluster.reconcile()
    await cluster.train(1)
    assert weight(cluster.manifest["status"]["progress"]["report"]) < 150
