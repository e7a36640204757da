"""A divergence and the attempts after it: real supervisors, a fake worker that diverges when it is told to."""

from __future__ import annotations

from finetune_api.contract.failures import FailureClass
from finetune_trainer.store.ledger import read_ledger
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer

REWIND = {"retry": {"onDivergence": "rewind"}}


def test_the_default_is_to_fail(cluster: Cluster) -> None:
    """LossDiverged keeps the last good checkpoint; nothing is prepared for a next attempt."""
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:8:42")
    assert pod.wait() == 42, pod.output()
    assert pod.message.failure_class == FailureClass.LOSS_DIVERGED
    assert not pod.message.will_rewind
    assert [checkpoint.step for checkpoint in read_ledger(cluster.store).checkpoints] == [5]


def test_back_twice_and_no_more(cluster: Cluster, operator: ProgressServer) -> None:
    """Each rewind is in the plan of all ranks, in status, and in every checkpoint after it; the third divergence is the end."""
    cluster.replicas = 2
    codes, messages = [], []
    for step in (8, 12, 13):
        pods = cluster.start_run(REWIND, FAKE_STEPS="400", FAKE_EXIT=f"0:{step}:42")
        codes.append(pods[0].wait(90))
        messages.append(pods[0].message)
        for pod in pods[1:]:
            assert pod.wait(90) in (42, 76)
    assert codes == [42, 42, 42]
    assert [message.will_rewind for message in messages] == [True, True, False]
    assert "goes back to the last good checkpoint" in messages[0].message
    assert "went back 2 times before" in messages[2].message
    last, other = cluster.pods[-2:]
    assert "rank 0 begins at step 10" in last.output()
    assert "rank 0 skips 3 after step 5" in last.output()
    assert "rank 0 skips 2 after step 10" in last.output()
    assert "rank 1 skips 3 after step 5" in other.output()
    assert "went back to step 10" in operator.last["warnings"]["LossRewound"]
    assert [rewind["step"] for rewind in operator.last["rewinds"]] == [5, 10]
    newest = {(found.attempt, found.step): found.manifest for found in read_ledger(cluster.store).checkpoints}
    assert [rewind.step for rewind in newest[2, 10].rewinds] == [5]


def test_a_rewound_run_that_is_interrupted_keeps_its_rewinds(cluster: Cluster, operator: ProgressServer) -> None:
    """Recorded, so that resume stays exact: also when the next attempt dies before its first checkpoint, or is a branch by a wish."""
    (pod,) = cluster.start_run(REWIND, FAKE_STEPS="400", FAKE_EXIT="0:8:42")
    assert pod.wait() == 42
    (early,) = cluster.start_run(REWIND, FAKE_STEPS="400", FAKE_EXIT="0:6:1")
    assert early.wait() == 1
    (again,) = cluster.start_run(REWIND, FAKE_STEPS="400", FAKE_EXIT="0:11:1")
    assert again.wait() == 1, again.output()
    assert "rank 0 skips 3 after step 5" in again.output()
    (branch,) = cluster.start_run({**REWIND, "checkpoint": {"resumeFrom": "checkpoint-10"}}, FAKE_STEPS="12")
    assert branch.wait() == 0, branch.output()
    assert "rank 0 skips 3 after step 5" in branch.output()
    (anew,) = cluster.start_run({**REWIND, "checkpoint": {"resumeFrom": "none"}}, FAKE_STEPS="2")
    assert anew.wait() == 0, anew.output()
    assert "skips" not in anew.output()


def test_back_to_before_a_loss_began_to_rise(cluster: Cluster, operator: ProgressServer) -> None:
    """F-13: not to the last checkpoint, whose weights are finite and bad; what would be gone back to outlives keepLast."""
    keeps_one = {"checkpoint": {"keepLast": 1}}
    (pod,) = cluster.start_run(REWIND | keeps_one, FAKE_STEPS="400", FAKE_EXIT="0:18:42", FAKE_STEADY_UNTIL="8")
    assert pod.wait(90) == 42, pod.output()
    assert pod.message.will_rewind
    resumable = [found.step for found in read_ledger(cluster.store).checkpoints if found.manifest.resumable]
    assert resumable == [5, 15]
    (early,) = cluster.start_run(REWIND | keeps_one, FAKE_STEPS="400", FAKE_EXIT="0:7:1")
    assert early.wait(90) == 1
    (again,) = cluster.start_run(REWIND | keeps_one, FAKE_STEPS="12")
    assert again.wait(90) == 0, again.output()
    for later in (early, again):
        assert "rank 0 begins at step 5" in later.output()
        assert "rank 0 skips 13 after step 5" in later.output()
    assert "diverged by step 18: went back to step 5" in operator.last["warnings"]["LossRewound"]
