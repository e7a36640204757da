"""Rows tokenised while they are trained, and rows read from the hub meanwhile: killed and resumed = never interrupted (E-13, E-14, X30)."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.protocol import DataStream, StepReport, StreamFile, WorkerMessage
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import DATA, Attempt, Run, evaluations, failure, steps_of, stop_at, stopped_step, weights
from tests.support.hub import HubServer, running_hub
from tests.support.jobs import merge
from tests.support.matrix import ENABLED

STEPS: Final = 10
LAZY: Final[dict[str, Any]] = {
    "dataset": {"lazyTokenize": True, "evalRatio": 0.1},
    "adapter": {"dropout": 0.1},
    "evaluation": {"strategy": "steps", "steps": 4, "batchSize": 4},
    "training": {"maxSteps": STEPS},
    "checkpoint": {"steps": 3},
}
STREAM: Final[dict[str, Any]] = {
    "dataset": {"uri": "hf://acme/rows", "streaming": True, "maxSamples": 0, "reshuffle": True},
    "adapter": {"dropout": 0.1},
    "training": {"maxSteps": STEPS},
    "checkpoint": {"steps": 3},
}
ROWS: Final = 14
"""Of a stream of two files: three epochs in ten steps of four rows."""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A hub with the rows as JSONL and as Parquet."""
    lines = DATA.read_text().splitlines()[:ROWS]
    parts = {"a": lines[:8], "b": lines[8:]}
    with running_hub() as server:
        server.add("datasets", "acme/jsonl", {f"train-{name}.jsonl": "\n".join(part).encode() for name, part in parts.items()})
        tables = {f"train-{name}.parquet": _parquet([json.loads(line) for line in part]) for name, part in parts.items()}
        server.add("datasets", "acme/parquet", tables)
        yield server


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=3)
    return sink.getvalue()


def streamed(run: Run, hub: HubServer, kind: str) -> Run:
    """A job whose rows are on the hub."""
    repository = hub.repositories["datasets", f"acme/{kind}"]
    commit = repository.revisions["main"]
    base = f"{hub.endpoint}/datasets/acme/{kind}/resolve/{commit}"
    files = [StreamFile(name=name, url=f"{base}/{name}", size=len(data)) for name, data in sorted(repository.commits[commit].items())]
    run.companions["stream"] = DataStream(commit=commit, files=files)
    return run


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 2)])
def test_lazy_equals_eager_and_itself(make_run: MakeRun, ranks: int, workers: int) -> None:
    """The very numbers of rows that were tokenised before, also after a SIGKILL and a resume."""
    spec = merge(LAZY, {"dataset": {"numWorkers": workers}})
    eager = make_run(merge(spec, {"dataset": {"lazyTokenize": False}})).attempt(ranks)
    whole = make_run(spec).attempt(ranks)
    assert whole.codes == eager.codes == [0] * ranks, whole.log
    assert steps_of(whole) == steps_of(eager)
    assert evaluations(whole) == evaluations(eager)
    assert weights(whole) == weights(eager)
    run = make_run(spec)
    killed = run.attempt(ranks, hook=kill_at(7))
    resumed = run.attempt(ranks, resume=max(killed.checkpoints))
    assert steps_of(killed, resumed) == steps_of(whole)
    assert weights(resumed) == weights(whole)


MANY: Final = (pytest.mark.matrix, pytest.mark.skipif(not ENABLED, reason="four loader processes: slow, tried by make matrix"))


@pytest.mark.parametrize(
    ("kind", "ranks", "workers"),
    [("jsonl", 1, 0), ("jsonl", 1, 2), ("parquet", 1, 2), ("parquet", 2, 0), pytest.param("parquet", 2, 2, marks=MANY)],
)
def test_a_stream_goes_on_where_it_stood(make_run: MakeRun, hub: HubServer, kind: str, ranks: int, workers: int) -> None:
    """Stopped once and killed once, over the ends of epochs."""
    spec = merge(STREAM, {"dataset": {"numWorkers": workers}})
    whole = streamed(make_run(spec), hub, kind).attempt(ranks)
    assert whole.codes == [0] * ranks, whole.log
    assert len({row["loss"] for row in whole.metrics.values()}) == STEPS
    run = streamed(make_run(spec), hub, kind)
    first = run.attempt(ranks, hook=stop_at(2))
    second = run.attempt(ranks, resume=stopped_step(first), hook=kill_at(8))
    third = run.attempt(ranks, resume=max(second.checkpoints))
    assert third.codes == [0] * ranks, third.log
    assert steps_of(first, second, third) == steps_of(whole)
    assert weights(third) == weights(whole)


def test_both_kinds_and_any_number_of_workers_give_the_same(make_run: MakeRun, hub: HubServer) -> None:
    """Rows follow from their position alone."""
    runs = [streamed(make_run(merge(STREAM, {"dataset": {"numWorkers": n}})), hub, kind) for kind, n in (("jsonl", 0), ("parquet", 2))]
    one, other = (run.attempt() for run in runs)
    assert steps_of(one) == steps_of(other)


def test_a_row_that_cannot_be_used(make_run: MakeRun, hub: HubServer, tmp_path: Path) -> None:
    """Named by file and line while it is read; or left out, its place kept."""
    lines = DATA.read_text().splitlines()[:ROWS]
    hub.add("datasets", "acme/broken", {"train.jsonl": "\n".join([*lines[:5], '{"messages": 3}', *lines[5:]]).encode()})
    ended = streamed(make_run(STREAM), hub, "broken").attempt()
    assert ended.codes == [42], ended.log
    assert failure(ended).failure_class == FailureClass.DATA
    assert "train.jsonl, line 6" in failure(ended).message
    skipped = streamed(make_run(merge(STREAM, {"dataset": {"onError": "skip"}})), hub, "broken").attempt()
    assert skipped.codes == [0], skipped.log


def kill_at(step: int) -> Any:
    """SIGKILL for rank 0 when it reports a step."""

    def hook(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == step:
            attempt.signal(signal.SIGKILL, 0)

    return hook
