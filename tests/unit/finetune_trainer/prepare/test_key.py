"""The key of prepared rows follows their contents and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.prepare.key import prepared_key
from tests.unit.finetune_trainer.prepare.conftest import MakeSpec


def key(make_spec: MakeSpec, training: dict[str, Any] | None = None, tokenizer: str = "t", data: str = "d", **dataset: Any) -> str:
    """Key of a spec."""
    return prepared_key(make_spec(training, **dataset), tokenizer_digest=tokenizer, dataset_digest=data)


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer": "other"},
        {"data": "other"},
        {"format": "text"},
        {"promptColumn": "question"},
        {"outputColumn": "answer"},
        {"evalRatio": 0.1},
        {"evalUri": "configmap://rows/eval.jsonl"},
        {"maxSamples": 10},
        {"promptMaxLength": 256},
        {"contentMaxLength": 256},
        {"packing": True},
        {"onError": "skip"},
        {"systemPrompt": "Be brief."},
        {"promptTemplate": "{prompt}"},
        {"chatTemplate": "{{ messages }}"},
        {"assistantOnlyLoss": True},
        {"weight": 2},
        {"additional": [{"uri": "configmap://rows/more.jsonl"}]},
        {"training": {"maxSeqLength": 256}},
        {"training": {"seed": 1}},
    ],
)
def test_what_changes_rows_changes_the_key(make_spec: MakeSpec, change: dict[str, Any]) -> None:
    """Contents and every parameter of preparing."""
    assert key(make_spec, **change) != key(make_spec)


@pytest.mark.parametrize(
    "change",
    [
        {"uri": "s3://elsewhere/copy.jsonl", "region": "eu", "secretRef": {"name": "keys"}},
        {"reshuffle": True},
        {"numWorkers": 4},
        {"pinMemory": True},
        {"maxSamples": -1},
        {"training": {"batchSize": 8, "learningRate": 1e-3, "epochs": 9}},
    ],
)
def test_what_leaves_rows_alone_leaves_the_key_alone(make_spec: MakeSpec, change: dict[str, Any]) -> None:
    """Neither places nor anything of training itself counts; 0 and -1 samples are both all (X11)."""
    assert key(make_spec, **change) == key(make_spec)


def test_another_version_of_the_code_prepares_anew(make_spec: MakeSpec) -> None:
    """A change of what is written for equal inputs must not meet old rows."""
    spec = make_spec()
    one, two = (prepared_key(spec, tokenizer_digest="t", dataset_digest="d", code_version=version) for version in (1, 2))
    assert one != two
