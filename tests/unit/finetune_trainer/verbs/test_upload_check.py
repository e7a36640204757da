"""How long a checkpoint will take, before there is one (OP-11)."""

from __future__ import annotations

import pytest

from finetune_api.contract.preflight import PreflightResult
from finetune_api.strategies import Strategy
from finetune_trainer.estimate.decision import Verdict
from finetune_trainer.estimate.memory import Plan
from finetune_trainer.store.local import LocalStore
from finetune_trainer.supervisor.environment import load_run_config
from finetune_trainer.verbs.findings import Findings
from finetune_trainer.verbs.preflight import run_preflight
from finetune_trainer.verbs.upload_check import check_upload
from tests.unit.finetune_trainer.verbs.conftest import VerbPod


def test_preflight_tells_size_speed_and_time(llama: VerbPod) -> None:
    """OP-11: of the checkpoint the estimate of length tells the size of, at the speed of this store."""
    assert run_preflight(llama.environment()) == 0
    result = PreflightResult.model_validate(llama.message.result)
    assert result.checkpoint is not None
    assert result.training is not None
    assert result.checkpoint.size_bytes == result.training.checkpoint_bytes
    assert result.checkpoint.upload_bytes_per_second > 0
    assert list(LocalStore(llama.directory / "store").list()) == []


@pytest.mark.parametrize(("strategy", "pods"), [("ddp", 1), ("zero3", 4), ("fsdp", 4)])
def test_pods_write_their_shares_at_the_same_time(verb_pod: VerbPod, strategy: Strategy, pods: int) -> None:
    """OP-11: whole copies are written by one pod, split ones by all."""
    environment = verb_pod.environment()
    environment.work_dir.mkdir()
    config = load_run_config(environment.run_config)
    config = config.model_copy(update={"topology": config.topology.model_copy(update={"replicas": 4})})
    found = Findings(verdict=Verdict(8, 8, strategy, False, None, None, "", 40_000_000_000, 0, Plan(8, False, True, strategy, 2), 512))
    check_upload(config, LocalStore(verb_pod.directory / "store"), environment.work_dir, found)
    assert found.checkpoint is not None
    assert found.checkpoint.save_seconds == 80 / pods
    expected = 40e9 / pods / found.checkpoint.upload_bytes_per_second
    assert found.checkpoint.upload_seconds == pytest.approx(expected, abs=0.1)


def test_a_model_of_unknown_size_is_not_judged(verb_pod: VerbPod) -> None:
    """Nothing is uploaded for it."""
    environment, found = verb_pod.environment(), Findings()
    check_upload(load_run_config(environment.run_config), LocalStore(verb_pod.directory / "store"), environment.work_dir, found)
    assert found.checkpoint is None
    assert not (verb_pod.directory / "store").exists()
