"""A finished job in a store, and the environment of a verb's pod."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import env
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.contract.termination import TerminationMessage
from finetune_api.resolve import resolve
from finetune_trainer.supervisor.environment import PodEnvironment, pod_environment
from tests.support.jobs import merge
from tests.support.models import write_sizes
from tests.support.pods import SPEC, write_model
from tests.support.shapes import LLAMA_8B

LLAMA_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": LLAMA_8B.hidden,
    "num_hidden_layers": LLAMA_8B.layers,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": LLAMA_8B.feed_forward,
    "vocab_size": LLAMA_8B.vocabulary,
    "max_position_embeddings": LLAMA_8B.context,
}


class VerbPod:
    """Directories and run config of a verb's pod."""

    def __init__(self, directory: Path, store: StoreConfig) -> None:
        self.directory, self.store = directory, store
        write_model(directory / "pvc/models/tiny")
        data = directory / "configmap/data"
        data.mkdir(parents=True)
        (data / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')

    def environment(self, changes: Mapping[str, Any] | None = None) -> PodEnvironment:
        """Write the run config; returns where things are."""
        spec = resolve(merge(SPEC, changes or {})).spec
        config = RunConfig(
            contract_version=1,
            job=JobIdentity(name="job", namespace="team", uid="uid-1"),
            run=2,
            spec=spec,
            topology=Topology(replicas=spec.replicas, processes_per_replica=1, device="cpu", master_addr="localhost", master_port=29500),
            store=self.store,
        )
        (self.directory / "run.json").write_text(config.to_json())
        names = {
            env.ENV_RUN_CONFIG: "run.json",
            env.ENV_WORK_DIR: "work",
            env.ENV_CACHE_DIR: "cache",
            env.ENV_SECRETS_DIR: "secrets",
            env.ENV_PVC_DIR: "pvc",
            env.ENV_CONFIGMAP_DIR: "configmap",
            env.ENV_TERMINATION_MESSAGE: "termination",
        }
        found = pod_environment({name: str(self.directory / path) for name, path in names.items()})
        # Tokens are counted by a program of its own, whose start costs seconds; these tests go without.
        return replace(found, program=("true",))

    @property
    def message(self) -> TerminationMessage:
        """What the verb left behind."""
        return TerminationMessage.model_validate(json.loads((self.directory / "termination").read_text()))


MakePod = Callable[[StoreConfig], VerbPod]


@pytest.fixture
def verb_pod(tmp_path: Path) -> VerbPod:
    """A pod whose job stores into a directory."""
    return VerbPod(tmp_path, StoreConfig(uri=f"file://{tmp_path}/store/team/job"))


@pytest.fixture
def llama(verb_pod: VerbPod) -> VerbPod:
    """A pod whose model has the sizes of Llama-3.1-8B, and no weights."""
    write_sizes(
        verb_pod.directory / "pvc/models/tiny", LLAMA_CONFIG, {f"{name}.weight": list(shape) for name, shape in LLAMA_8B.tensors.items()}
    )
    return verb_pod
