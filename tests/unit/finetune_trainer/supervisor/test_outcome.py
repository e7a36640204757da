"""One exit code and one cause from what the ranks of a pod did."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.failures import CODE_PRECEDENCE, REACTIONS, FailureClass
from finetune_trainer.protocol import Failed
from finetune_trainer.store.errors import StorageUnavailableError
from finetune_trainer.supervisor.outcome import (
    Outcome,
    WorkerEnd,
    count_oom_kills,
    outcome_of_error,
    outcome_of_workers,
    precedence,
)


def failed(kind: FailureClass, message: str = "why") -> Failed:
    return Failed(failure_class=kind, message=message)


def judge(*ends: WorkerEnd, was_oom_killed: bool = False) -> Outcome:
    return outcome_of_workers(ends, was_oom_killed=was_oom_killed)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([0, 75], 75), ([75, 76], 76), ([76, 77], 77), ([77, 1], 1), ([1, 42], 42), ([42, 0, 75, 76, 77, 1], 42), ([139], 1)],
)
def test_the_code_is_the_causes(codes: list[int], expected: int) -> None:
    """Trials 19: 42 > 1 > 77 > 76 > 75, not the first one seen."""
    kinds = {42: FailureClass.DATA, 77: FailureClass.STORAGE_UNAVAILABLE, 76: FailureClass.PEER_LOST}
    ends = [WorkerEnd(rank, code, float(rank), failed(kinds[code]) if code in kinds else None) for rank, code in enumerate(codes)]
    assert judge(*ends).exit_code == expected


def test_the_earliest_cause_is_told() -> None:
    late = WorkerEnd(0, 42, 9.0, failed(FailureClass.DATA, "row 7"))
    early = WorkerEnd(1, 42, 5.0, failed(FailureClass.LOSS_DIVERGED, "NaN"), ["last", "line"])
    victim = WorkerEnd(2, 76, 1.0, failed(FailureClass.PEER_LOST))
    assert judge(late, early, victim) == Outcome(42, FailureClass.LOSS_DIVERGED, "NaN", 1, "last\nline")


def test_our_own_sigterm_counts_as_stopped() -> None:
    """Design §5: a worker killed by our own SIGTERM before its handler was set counts as 75."""
    assert judge(WorkerEnd(0, -signal.SIGTERM, 1.0, was_terminated=True)).exit_code == 75
    assert judge(WorkerEnd(0, -signal.SIGTERM, 1.0)).exit_code == 1


def test_sigkill_is_an_oom_kill_only_when_the_cgroup_says_so() -> None:
    end = WorkerEnd(3, -signal.SIGKILL, 1.0)
    assert judge(end).failure_class == FailureClass.UNKNOWN
    outcome = judge(end, was_oom_killed=True)
    assert (outcome.exit_code, outcome.failure_class) == (137, FailureClass.OOM_KILLED)
    assert "memory limit" in outcome.message


def test_ranks_we_killed_say_nothing() -> None:
    killed = WorkerEnd(0, -signal.SIGKILL, 9.0, was_killed=True)
    assert judge(killed).failure_class == FailureClass.PEER_LOST
    assert judge(killed, WorkerEnd(1, 42, 1.0, failed(FailureClass.CUDA_OUT_OF_MEMORY)), was_oom_killed=True).exit_code == 42


def test_cuda_oom_is_recognised_in_the_last_lines() -> None:
    lines = ["Traceback", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"]
    outcome = judge(WorkerEnd(0, 1, 1.0, None, lines))
    assert (outcome.exit_code, outcome.failure_class) == (42, FailureClass.CUDA_OUT_OF_MEMORY)
    assert "CUDA out of memory" in outcome.message


def test_errors_of_the_supervisor() -> None:
    assert outcome_of_error(StorageUnavailableError("away")) == Outcome(77, FailureClass.STORAGE_UNAVAILABLE, "away")
    assert outcome_of_error(KeyError("x")).exit_code == 1


codes = st.sampled_from([*CODE_PRECEDENCE, -9, -11, 137, 2])


@given(st.lists(st.tuples(codes, st.floats(0, 100)), min_size=1, max_size=8))
def test_order_of_the_ranks_does_not_matter(ends: list[tuple[int, float]]) -> None:
    made = [WorkerEnd(rank, code, at) for rank, (code, at) in enumerate(ends)]
    forward, backward = judge(*made), judge(*reversed(made))
    assert forward.exit_code == backward.exit_code
    assert forward.failure_class == backward.failure_class


def test_every_class_has_a_place_in_the_precedence() -> None:
    assert all(precedence(reaction.exit_code) >= 0 for reaction in REACTIONS.values())


@pytest.mark.parametrize(
    ("name", "content", "kills"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 5\noom 2\noom_kill 2\n", 2),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("other", "", 0),
    ],
)
def test_the_kernel_counts_oom_kills(tmp_path: Path, name: str, content: str, kills: int) -> None:
    (tmp_path / name).write_text(content)
    assert count_oom_kills([tmp_path / "absent", tmp_path / name]) == kills
    assert count_oom_kills([tmp_path / "absent"]) == 0
