"""A tokenizer for tests that prepare rows, and specs to prepare them by."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_trainer.protocol import PreparePlan

ROOT = Path(__file__).parents[4]
MakeSpec: TypeAlias = Callable[..., FineTuneJobSpec]
MakePlan: TypeAlias = Callable[..., PreparePlan]


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's directory: tokenizer with chat template, config.json."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run([sys.executable, ROOT / "examples/tiny_model.py", directory, "--params", "test"], check=True)
    return directory


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> PreTrainedTokenizerBase:
    """The tiny model's tokenizer, loaded by a class that does not pull torch in."""
    loaded: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(model_dir)
    return loaded


@pytest.fixture
def make_spec() -> MakeSpec:
    """Resolve a spec from dataset and training fields, and others in ``job``."""

    def make(training: Mapping[str, Any] | None = None, job: Mapping[str, Any] | None = None, **dataset: Any) -> FineTuneJobSpec:
        fields = {
            "model": {"uri": "s3://bucket/model"},
            "dataset": {"uri": "configmap://rows/train.jsonl", **dataset},
            "resources": {"device": "cpu"},
            "training": dict(training or {}),
            **(job or {}),
        }
        return resolve(fields).spec

    return make


@pytest.fixture
def make_plan(tmp_path: Path, model_dir: Path, make_spec: MakeSpec) -> MakePlan:
    """Write rows and a run config; returns the plan to prepare them."""

    def make(
        rows: Sequence[Mapping[str, Any]],
        training: Mapping[str, Any] | None = None,
        job: Mapping[str, Any] | None = None,
        **dataset: Any,
    ) -> PreparePlan:
        data = tmp_path / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = RunConfig(
            contract_version=CONTRACT_VERSION,
            job=JobIdentity(name="job", namespace="default", uid="uid"),
            run=1,
            spec=make_spec({"maxSeqLength": 128, **(training or {})}, job, **dataset),
            topology=Topology(replicas=1, processes_per_replica=1, device="cpu", master_addr="localhost", master_port=1),
            store=StoreConfig(uri="file:///store"),
        )
        (tmp_path / "config.json").write_text(config.to_json())
        return PreparePlan(
            run_config=tmp_path / "config.json",
            tokenizer_dir=model_dir,
            train_files=[[data]],
            eval_files=[],
            output_dir=tmp_path / "prepared",
            dataset_digest="digest",
        )

    return make


def chats(count: int, words: int = 3) -> list[Mapping[str, Any]]:
    """Short conversations."""
    return [{"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "word " * words}]} for n in range(count)]
