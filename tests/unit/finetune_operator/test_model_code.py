"""Code beside a model: run only where the administrator says so (``trainer.trustRemoteCode.allowed``)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.resolve import resolve
from finetune_operator.plan.model_code import code_refusal
from finetune_operator.settings import Settings
from tests.support.operator_cluster import SETTINGS, FakeCluster

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL: dict[str, Any] = {"uri": f"hf://acme/own@{COMMIT}", "trustRemoteCode": True}


def refusal(model: dict[str, Any], *allowed: str) -> str:
    return code_refusal(resolve({"model": model, "dataset": {"uri": "configmap://data/train.jsonl"}}).spec, allowed)


@pytest.mark.parametrize("pattern", ["*", "hf://acme/*", f"hf://acme/own@{COMMIT}", "hf://*/own@*"])
def test_allowed_by_a_pattern(pattern: str) -> None:
    assert refusal(MODEL, "pvc://models/*", pattern) == ""


@pytest.mark.parametrize("pattern", ["hf://Acme/*", "hf://acme/ow?@main", "pvc://*"])
def test_refused_by_name(pattern: str) -> None:
    """The address, what is allowed and where it is set are named."""
    said = refusal(MODEL, pattern)
    assert all(part in said for part in (MODEL["uri"], pattern, "trainer.trustRemoteCode.allowed", "model.uri"))


def test_another_tokenizer_needs_its_own_permission() -> None:
    model = {**MODEL, "tokenizer": {"uri": f"hf://other/words@{COMMIT}"}}
    assert "model.tokenizer.uri" in refusal(model, "hf://acme/*")
    assert refusal(model, "hf://acme/*", "hf://other/*") == ""


def test_nobody_is_asked_where_no_code_is_run() -> None:
    assert refusal({"uri": "hf://acme/own"}) == ""


def test_the_setting_is_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TRAINER_IMAGE": "t",
        "STORAGE_BUCKET": "finetune",
        "PROGRESS_URL": "https://op",
        "TRUSTED_MODEL_CODE": "a, b",
    }.items():
        monkeypatch.setenv(f"FINETUNE_OPERATOR_{name}", value)
    assert Settings().for_plan("1").trusted_model_code == ("a", "b")


async def test_a_job_waits_for_the_permission() -> None:
    """Valid=False with a sentence and no pod; once the administrator has allowed it, the job runs."""
    cluster = FakeCluster()
    cluster.create({"model": MODEL})
    await cluster.reconcile()
    assert cluster.condition("Valid") == ("False", "RemoteCodeNotAllowed")
    assert cluster.status.run == 0
    cluster.settings = SETTINGS.model_copy(update={"trusted_model_code": ("hf://acme/*",)})
    cluster.reconciler = cluster.new_operator()
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("Valid") == ("True", "Accepted")
