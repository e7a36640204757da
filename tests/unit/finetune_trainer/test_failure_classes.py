"""Every class of failure that is the trainer's to tell is told by some part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources import hub
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.resolve import Split, fetch_data, fetch_model
from finetune_trainer.store.credentials import SecretFiles, read_s3_credentials
from finetune_trainer.store.ledger import Ledger
from finetune_trainer.store.resume import plan_resume
from finetune_trainer.store.s3 import S3Store
from finetune_trainer.store.s3_client import S3Connection, parse_s3_uri
from finetune_trainer.supervisor.outcome import outcome_of_error
from finetune_trainer.supervisor.overseer import Overseer
from finetune_trainer.supervisor.situation import LeaveError
from finetune_trainer.worker.checkpoint import refuse_broken_weights
from finetune_trainer.worker.failures import as_trainer_error
from finetune_trainer.worker.model import load_model
from finetune_trainer.worker.precision import Device, Formats
from tests.support.hub import running_hub
from tests.support.ports import free_port

OTHERS: Final[Mapping[FailureClass, str]] = {
    FailureClass.IMAGE_PULL: "no container of ours runs: the operator reads it from the pod",
    FailureClass.UNSCHEDULABLE: "there is no pod yet: the operator's",
    FailureClass.NODE_LOST: "whoever could tell is lost with the node: the operator's",
    FailureClass.PREEMPTED: "told by the pod's condition DisruptionTarget, which the operator reads",
    FailureClass.DEADLINE_EXCEEDED: "told by the Job's condition, which the operator reads",
}
"""Classes that the trainer never tells, and why."""


def no_token(directory: Path) -> None:
    with running_hub() as server:
        server.add("models", "acme/gated", {"config.json": b"{}"}, access="gated")
        fetch_model(of_hub("hf://acme/gated"), pod(directory, server.endpoint), needs_tokenizer=True)


def of_hub(uri: str) -> Source:
    return Source(uri, "model.uri", SecretFiles(Path("absent"), "none"))


def pod(directory: Path, endpoint: str) -> SourceContext:
    (directory / "HF_ENDPOINT").write_text(endpoint)
    return SourceContext(
        cache_dir=directory / "cache",
        pvc_dir=directory / "pvc",
        configmap_dir=directory / "configmap",
        hub_secret=SecretFiles(directory, "hub-token"),
        offline=False,
    )


def store_away(directory: Path) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (directory / key).write_text("x")
    location = parse_s3_uri("s3://bucket/job", endpoint=f"http://127.0.0.1:{free_port()}")
    S3Store(S3Connection(location, SecretFiles(directory, "s")), patience=0.1).get("key")


def infinite_weight(_: Path) -> None:
    weights = [torch.tensor([1.0, torch.inf])]
    session: Any = SimpleNamespace(
        sharing=SimpleNamespace(local_weights=lambda _model: weights), group=SimpleNamespace(agree=lambda bits: bits)
    )
    refuse_broken_weights(session, Mock(), 3)


def hanging_start(_: Path) -> None:
    session = Mock()
    session.inputs.spec.retry = SimpleNamespace(stall_seconds=-1, on_stall="restart")
    session.now.started = None
    session.is_leader = False
    session.crew.workers.are_done = False
    overseer = Overseer(session)
    overseer.guard.heard(0, "Training", 1)
    overseer.look()


def no_library(directory: Path) -> None:
    formats = Formats("float32", "float32", "no", tf32=False, is_quantized=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoModelForCausalLM, "from_pretrained", Mock(side_effect=ImportError("bitsandbytes is not there")))
        load_model(directory, formats, Device("cpu"), placed=False)


def classified(error: BaseException) -> Callable[[Path], None]:
    def fail(_: Path) -> None:
        raise as_trainer_error(error, None)

    return fail


OWN: Final[Mapping[FailureClass, Callable[[Path], object]]] = {
    FailureClass.CONFIGURATION: lambda _: parse_s3_uri("ftp://bucket/path"),
    FailureClass.CUDA_OUT_OF_MEMORY: classified(torch.OutOfMemoryError("CUDA out of memory")),
    FailureClass.OOM_KILLED: classified(MemoryError()),
    FailureClass.LOSS_DIVERGED: infinite_weight,
    FailureClass.DATA: lambda path: fetch_data(
        Source("configmap://absent/x", "dataset.uri", SecretFiles(path, "none")), pod(path, "http://127.0.0.1:9"), Split("train", None)
    ),
    FailureClass.MODEL: lambda path: load_model(path, Formats("float32", "float32", "no", tf32=False), Device("cpu"), placed=False),
    FailureClass.HUGGING_FACE_AUTH: no_token,
    FailureClass.HUB_UNAVAILABLE: lambda path: fetch_model(of_hub("hf://acme/x"), pod(path, "http://127.0.0.1:9"), needs_tokenizer=True),
    FailureClass.STORAGE_AUTH: lambda path: read_s3_credentials(SecretFiles(path / "absent", "finetune-storage")),
    FailureClass.STORAGE_UNAVAILABLE: store_away,
    FailureClass.PEER_LOST: classified(RuntimeError("gloo: Connection closed by peer")),
    FailureClass.STALLED: hanging_start,
    FailureClass.CHECKPOINT_INCOMPLETE: lambda _: plan_resume(Ledger(), resume_from="checkpoint-5", auto_resume=True),
    FailureClass.QUANTIZATION_UNAVAILABLE: no_library,
    FailureClass.UNKNOWN: classified(RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
}
"""One way to each class that is the trainer's."""


def test_the_table_is_whole() -> None:
    """A class that is added is the trainer's or somebody else's."""
    assert not OWN.keys() & OTHERS.keys()
    assert OWN.keys() | OTHERS.keys() == set(FailureClass)


@pytest.mark.parametrize("expected", OWN)
def test_every_class_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: FailureClass) -> None:
    """Failures end with one of the classes that retry and advice go by."""
    monkeypatch.setattr(hub, "OUTAGE_PATIENCE_SECONDS", 0.1)
    with pytest.raises((TrainerError, LeaveError)) as caught:
        OWN[expected](tmp_path)
    error = caught.value
    outcome = error.outcome if isinstance(error, LeaveError) else outcome_of_error(error)
    assert outcome.failure_class is expected
