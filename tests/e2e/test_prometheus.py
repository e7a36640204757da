"""A real Prometheus scrapes operator and trainer (T-03, T-11)."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import yaml

from finetune_api.contract import metrics
from tests.e2e.conftest import JobFactory
from tests.support.install import tool_path
from tests.support.platform import SYSTEM_NAMESPACE, Platform, eventually

pytestmark = pytest.mark.e2e
Query = Callable[[str], list[dict[str, object]]]
TRAINER = (
    metrics.LOSS, metrics.EVAL_LOSS, metrics.LEARNING_RATE, metrics.GRAD_NORM, metrics.TOKENS_PER_SECOND, metrics.STEP,
    metrics.STEP_DURATION, metrics.CHECKPOINT_SAVE_DURATION, metrics.CHECKPOINT_UPLOAD_DURATION,
)  # fmt: skip
OPERATOR = ("finetune_operator_reconcile_duration_seconds_count", "finetune_operator_leader", metrics.JOB_INFO)


@pytest.fixture
def prometheus(tmp_path: Path, platform: Platform, run_job: JobFactory) -> Iterator[Query]:
    """Prometheus with the operator and one training pod as targets."""
    spec = {
        "training": {"maxSteps": 2000},
        "dataset": {"evalRatio": 0.1},
        "evaluation": {"strategy": "steps", "steps": 10},
        "checkpoint": {"steps": 10},
    }
    job = run_job("scraped", spec)
    job.wait_step(20)
    binary = str(tool_path("prometheus"))
    with ExitStack() as stack:
        trainer = stack.enter_context(job.kubectl.port_forward(f"pod/{job.pod(0)}", 9090))
        operator = stack.enter_context(platform.kubectl.within(SYSTEM_NAMESPACE).port_forward("deployment/finetune-operator", 8080))
        targets = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in (("trainer", trainer), ("operator", operator))
        ]
        config = tmp_path / "prometheus.yml"
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": targets}))
        log = stack.enter_context((tmp_path / "log").open("w"))
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", "--web.listen-address=127.0.0.1:0"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.terminate)
        address = eventually(lambda: _address(tmp_path / "log"), within=30, what="Prometheus listens")

        def query(expression: str) -> list[dict[str, object]]:
            url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])

        yield query


def test_every_series_is_there(prometheus: Query) -> None:
    """Loss, learning rate, gradient norm, tokens/s, step and checkpoint durations; the operator's own metrics."""
    for name in (*TRAINER, *OPERATOR):
        eventually(partial(prometheus, name), within=60, what=f"series {name}")
    (loss,) = prometheus(metrics.LOSS)
    labels = loss["metric"]
    assert isinstance(labels, dict)
    assert labels["finetune_job"] == "scraped"


def _address(log: Path) -> str | None:
    for line in log.read_text().splitlines():
        if "Listening on" in line and "address=" in line:
            return line.split("address=")[1].split()[0].strip('"')
    return None
