"""Rows of a stream by position: every row once per epoch, the same from wherever one comes, without reading what lies before."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rows import Row
from finetune_trainer.prepare.stream import RowStream, open_rows
from finetune_trainer.protocol import DataStream, StreamFile
from finetune_trainer.sources import remote_file
from tests.support.hub import HubServer, running_hub

SIZES = (7, 0, 5, 11)
ROWS = sum(SIZES)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        yield server


def stream_of(hub: HubServer, kind: str) -> DataStream:
    """Numbers from 0 in files of several sizes."""
    files, number = {}, 0
    for index, size in enumerate(SIZES):
        values = [{"text": str(number + at)} for at in range(size)]
        number += size
        if kind == "parquet":
            sink = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(values, schema=pa.schema([("text", pa.string())])), sink, row_group_size=4)
            files[f"{index}.parquet"] = sink.getvalue()
        elif kind == "jsonl":
            files[f"{index}.jsonl"] = "\n\n".join(json.dumps(value) for value in values).encode()
        else:
            files[f"{index}.txt"] = "".join(f"{value['text']}\r\n" for value in values).encode()
    commit = hub.add("datasets", f"acme/{kind}", files)
    base = f"{hub.endpoint}/datasets/acme/{kind}/resolve/{commit}"
    return DataStream(commit=commit, files=[StreamFile(name=name, url=f"{base}/{name}", size=len(data)) for name, data in files.items()])


def texts(rows: list[Row | TrainerError]) -> list[str]:
    assert all(isinstance(row, Row) for row in rows), rows
    return [str(row.fields["text"]) for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "txt"])
@pytest.mark.parametrize("window", [1, 4, ROWS, 100])
def test_every_row_once_per_epoch(hub: HubServer, kind: str, window: int) -> None:
    """Also where windows end with the epoch, or hold all of it."""
    stream = RowStream(stream_of(hub, kind), 42, reshuffle=True, window=window)
    epochs = [texts(stream.rows(range(epoch * ROWS, (epoch + 1) * ROWS))) for epoch in range(3)]
    assert all(Counter(epoch) == Counter(map(str, range(ROWS))) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0], key=int)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("window", [3, 4, ROWS])
def test_a_position_is_a_row_wherever_one_comes_from(hub: HubServer, kind: str, window: int) -> None:
    """What a resumed run, or one of several loader processes, reads is what one that read everything did."""
    described = stream_of(hub, kind)
    whole = texts(RowStream(described, 7, reshuffle=False, window=window).rows(range(3 * ROWS)))
    assert whole[:ROWS] == whole[ROWS : 2 * ROWS]
    for start in (1, 5, ROWS - 1, ROWS, ROWS + 2, 2 * ROWS + 9):
        fresh = RowStream(described, 7, reshuffle=False, window=window)
        assert texts(fresh.rows(range(start, 3 * ROWS))) == whole[start:]
        assert texts(fresh.rows([0])) == whole[:1], "back to the beginning"


def test_another_seed_is_another_order(hub: HubServer) -> None:
    described = stream_of(hub, "jsonl")
    assert texts(RowStream(described, 1, reshuffle=False).rows(range(ROWS))) != texts(
        RowStream(described, 2, reshuffle=False).rows(range(ROWS))
    )


def test_rows_that_are_passed_over_are_not_read(hub: HubServer) -> None:
    """Trial 14: of a Parquet file only the groups of rows that are wanted are fetched."""
    sink = io.BytesIO()
    values = [{"text": f"{at:06d}" * 200} for at in range(20_000)]
    pq.write_table(pa.Table.from_pylist(values), sink, row_group_size=1000, compression="none", use_dictionary=False)
    commit = hub.add("datasets", "acme/large", {"large.parquet": sink.getvalue()})
    file = StreamFile(
        name="large.parquet", url=f"{hub.endpoint}/datasets/acme/large/resolve/{commit}/large.parquet", size=len(sink.getvalue())
    )
    hub.requests.clear()
    reader = open_rows(file)
    assert reader.skip(19_000) == 19_000
    assert texts(reader.take(2)) == [values[19_000]["text"], values[19_001]["text"]]
    assert len(hub.requests) <= 6, "24 MB would be six blocks of 4 MiB"
    assert reader.skip(2000) == 998


def test_an_outage_is_waited_for(hub: HubServer) -> None:
    described = stream_of(hub, "jsonl")
    hub.failures = 2
    assert len(texts(RowStream(described, 1, reshuffle=False).rows([0, 1]))) == 2


def test_a_hub_that_stays_away_is_no_fault_of_the_data(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is started again later: the class says so."""
    described = stream_of(hub, "jsonl")
    monkeypatch.setattr(remote_file, "OUTAGE_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(hub, "failures", 1000)
    with pytest.raises(TrainerError, match="did not answer within") as caught:
        RowStream(described, 1, reshuffle=False).rows([0])
    assert caught.value.failure_class == FailureClass.HUB_UNAVAILABLE


def test_what_is_wrong_with_a_line(hub: HubServer) -> None:
    """A place for each, and the rows after it."""
    data = b'{"text": "a"}\n{"text"\n[1]\n\xff\n{"text": "b"}\n'
    commit = hub.add("datasets", "acme/wrong", {"w.jsonl": data})
    reader = open_rows(StreamFile(name="w.jsonl", url=f"{hub.endpoint}/datasets/acme/wrong/resolve/{commit}/w.jsonl", size=len(data)))
    rows = reader.take(10)
    messages = [row.message for row in rows if isinstance(row, TrainerError)]
    assert [message.partition(":")[0] for message in messages] == ["w.jsonl, line 2", "w.jsonl, line 3", "w.jsonl, line 4"]
    assert texts([row for row in rows if isinstance(row, Row)]) == ["a", "b"]


def test_a_dataset_without_rows(hub: HubServer) -> None:
    commit = hub.add("datasets", "acme/none", {"n.jsonl": b"\n"})
    file = StreamFile(name="n.jsonl", url=f"{hub.endpoint}/datasets/acme/none/resolve/{commit}/n.jsonl", size=1)
    with pytest.raises(TrainerError, match="no rows to train on"):
        RowStream(DataStream(commit=commit, files=[file]), 1, reshuffle=False).rows([0])


def test_only_public_files(hub: HubServer) -> None:
    """A refusal is final and says what to do."""
    commit = hub.add("datasets", "acme/secret", {"s.jsonl": b"{}"}, access="private")
    file = StreamFile(name="s.jsonl", url=f"{hub.endpoint}/datasets/acme/secret/resolve/{commit}/s.jsonl", size=2)
    with pytest.raises(TrainerError, match="only public datasets can be streamed"):
        open_rows(file).take(1)
