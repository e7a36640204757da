"""Settings, logs, metrics, health: what an administrator sees and sets."""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError

from finetune_operator import health
from finetune_operator.logs import JsonFormatter
from finetune_operator.metrics import OperatorMetrics
from finetune_operator.settings import Settings

REQUIRED = {
    "FINETUNE_OPERATOR_TRAINER_IMAGE": "trainer:1",
    "FINETUNE_OPERATOR_STORAGE_BUCKET": "finetune",
    "FINETUNE_OPERATOR_PROGRESS_URL": "https://finetune-operator.finetune.svc:8443/",
}


def read(monkeypatch: pytest.MonkeyPatch, **changes: str) -> Settings:
    for name, value in {**REQUIRED, **{f"FINETUNE_OPERATOR_{name}": value for name, value in changes.items()}}.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch, WATCH_NAMESPACES="team-a, team-b", IMAGE_PULL_SECRETS="", STORAGE_ENDPOINT="minio:9000", STORAGE_SECURE="false"
    )
    assert (settings.watch_namespaces, settings.image_pull_secrets) == (("team-a", "team-b"), ())
    for_plan = settings.for_plan("1.2.3")
    assert (for_plan.version, for_plan.storage_endpoint, for_plan.progress_url) == (
        "1.2.3", "http://minio:9000", "https://finetune-operator.finetune.svc:8443",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "secure", "expected"),
    [("minio:9000", "true", "https://minio:9000"), ("http://minio:9000", "true", "http://minio:9000"), ("", "true", None)],
)
def test_the_storage_endpoint_is_a_url(monkeypatch: pytest.MonkeyPatch, endpoint: str, secure: str, expected: str | None) -> None:
    assert read(monkeypatch, STORAGE_ENDPOINT=endpoint, STORAGE_SECURE=secure).for_plan("1").storage_endpoint == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PROGRESS_URL": "http://plain:8443"}, "must start with https://"),
        ({"RENEW_DEADLINE_SECONDS": "20"}, "RENEW_DEADLINE_SECONDS"),
        ({"WORKERS": "0"}, "greater than or equal to 1"),
        ({"TRAINER_IMAGE": ""}, "at least 1 character"),
        ({"GRAFANA_URL": "grafana.example.com"}, "must start with https://"),
    ],
)
def test_a_setting_that_cannot_work_is_named(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(monkeypatch, **changes)


def test_a_log_record_is_one_json_object() -> None:
    record = logging.makeLogRecord(
        {"name": "finetune", "levelno": 20, "levelname": "INFO", "msg": "run %d", "args": (3,), "job": "a/b", "created": 0.0}
    )
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "1970-01-01T00:00:00.000Z", "level": "info", "logger": "finetune", "message": "run 3", "job": "a/b",
    }  # fmt: skip


def int_or_boom() -> int:
    raise ValueError("boom")


def test_an_exception_is_a_field_not_more_lines() -> None:
    with pytest.raises(ValueError, match="boom") as caught:
        int_or_boom()
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (caught.type, caught.value, caught.tb)})
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert "ValueError: boom" in json.loads(text)["exception"]


async def test_health_and_readiness_name_what_is_wrong() -> None:
    problem = ""
    app = health.build_app(OperatorMetrics("1").registry, health={"lease": lambda: ""}, readiness={"tls": lambda: problem})
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 200
        problem = "there is no certificate yet"
        answer = await client.get("/readyz")
        assert (answer.status, await answer.json()) == (503, {"ok": False, "problems": {"tls": "there is no certificate yet"}})
        metrics = await client.get("/metrics")
        assert "finetune_operator_info" in await metrics.text()
