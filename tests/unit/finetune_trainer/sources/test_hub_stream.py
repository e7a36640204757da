"""E-14, X30: which files of a public dataset are streamed, and what is looked at before."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.hub_stream import find_stream, write_excerpt
from finetune_trainer.sources.resolve import Split
from finetune_trainer.store.credentials import SecretFiles
from tests.support.hub import HubServer

SOURCE = Source("hf://acme/rows", "dataset.uri", SecretFiles(Path("absent"), "none"))
TRAIN = Split("train", None)


def lines(first: int, count: int) -> bytes:
    return "\n".join(json.dumps({"text": f"row {first + at}"}) for at in range(count)).encode()


def test_files_of_the_split_at_a_commit(hub: HubServer, context: SourceContext) -> None:
    """Nothing is fetched; a branch that moves on changes nothing for a run that has begun."""
    files = {"train-0.jsonl": lines(0, 3), "train-1.jsonl": lines(3, 2), "test.jsonl": lines(5, 1), "README.md": b"# rows"}
    commit = hub.add("datasets", "acme/rows", files)
    stream = find_stream(SOURCE, context, TRAIN)
    assert stream.commit == commit
    assert [(file.name, file.size) for file in stream.files] == [(name, len(files[name])) for name in ("train-0.jsonl", "train-1.jsonl")]
    assert not any(path.endswith(".jsonl") for path in hub.downloads())
    hub.repositories["datasets", "acme/rows"].commit({"train.jsonl": lines(0, 1)})
    assert find_stream(SOURCE, context, TRAIN, pinned=commit) == stream
    assert find_stream(SOURCE, context, TRAIN).commit != commit


def test_an_excerpt_over_files(hub: HubServer, context: SourceContext, tmp_path: Path) -> None:
    """Whatever the rows are read from, they look like lines."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"text": f"row {at}"} for at in range(5)]), sink)
    hub.add("datasets", "acme/rows", {"train-0.parquet": sink.getvalue(), "train-1.parquet": sink.getvalue()})
    path = write_excerpt(find_stream(SOURCE, context, TRAIN), tmp_path, rows=7)
    assert path.name == "train-0.jsonl"
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [f"row {at}" for at in (0, 1, 2, 3, 4, 0, 1)]


@pytest.mark.parametrize(
    ("files", "said"),
    [({"train.csv": b"a,b"}, r"train\.csv cannot be read row by row"), ({"test.jsonl": b"{}"}, "has no split train")],
)
def test_what_cannot_be_streamed(hub: HubServer, context: SourceContext, files: dict[str, bytes], said: str) -> None:
    hub.add("datasets", "acme/rows", files)
    with pytest.raises(TrainerError, match=said) as caught:
        find_stream(SOURCE, context, TRAIN)
    assert caught.value.failure_class == FailureClass.DATA


def test_only_public_ones_and_only_online(hub: HubServer, context: SourceContext) -> None:
    """AC-38. A token makes no difference: training would read without it."""
    hub.add("datasets", "acme/rows", {"train.jsonl": lines(0, 1)}, access="gated")
    with pytest.raises(TrainerError, match=r"is not public: dataset\.streaming reads public datasets only"):
        find_stream(SOURCE, context, TRAIN)
    with pytest.raises(TrainerError, match="offline is set"):
        find_stream(SOURCE, dataclasses.replace(context, offline=True), TRAIN)
