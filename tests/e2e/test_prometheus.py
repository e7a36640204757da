"""A real Prometheus finds the pods by their annotations; every panel of every dashboard shows something of real jobs (T-03, T-11, U-02)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_monitoring.view import View
from tests.e2e.conftest import JobFactory
from tests.support.dashboards import empty_panels
from tests.support.platform import ROOT, SYSTEM_NAMESPACE, Kubectl, Platform, eventually
from tests.support.prometheus_server import serve

pytestmark = pytest.mark.e2e

SCRAPE_SECONDS: Final = 1.0
GPU_TIME: Final = "jobs on CPU use no GPU time, and cost nothing"
EXEMPT: Final = {
    "job/GPU memory/A": "of GPUs",
    "job/Model FLOPs utilization/A": "of GPUs",
    "compare/Outcome/I": GPU_TIME,
    "compare/Outcome/J": GPU_TIME,
    "compare/GPU time/A": GPU_TIME,
    "fleet/Productive/A": GPU_TIME,
    "fleet/Cost of lost work/A": GPU_TIME,
    "fleet/GPU time by use/A": GPU_TIME,
    "fleet/All jobs/I": GPU_TIME,
}
"""Queries that have no answer here, and why."""
OF_A_METHOD: Final = {"Reward": "short-names", "Distance to the reference": "short-names", "Accuracy of preferences": "preferences"}
"""Panels that show something for jobs of some methods alone, and such a job."""


@contextmanager
def discovery(kubectls: Sequence[Kubectl], api_port: int) -> Iterator[dict[str, Any]]:
    """A scrape job for pods that say where their metrics are (prometheus.io/*), read through the API server's proxy."""

    def target(pod: dict[str, Any]) -> dict[str, Any]:
        name, namespace, said = (pod["metadata"][key] for key in ("name", "namespace", "annotations"))
        path = f"/api/v1/namespaces/{namespace}/pods/{name}:{said['prometheus.io/port']}/proxy{said['prometheus.io/path']}"
        labels = {"__metrics_path__": path, "namespace": namespace, "pod": name, "instance": name}
        return {"targets": [f"127.0.0.1:{api_port}"], "labels": labels}

    def found() -> list[dict[str, Any]]:
        pods = (pod for kubectl in kubectls for pod in kubectl.items("pods") if pod["status"].get("phase") == "Running")
        return [target(pod) for pod in pods if pod["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(found()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            """Not on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            yield {"job_name": "pods", "http_sd_configs": [{"url": url, "refresh_interval": "1s"}]}
        finally:
            server.shutdown()


SHORT: Final = {"training": {"gradAccumSteps": 2, "maxSteps": 10}}
JOBS: Final[dict[str, dict[str, Any]]] = {
    "paused-once": {
        "training": {"maxSteps": 5000},
        "dataset": {"evalRatio": 0.1},
        "evaluation": {"strategy": "steps", "steps": 10},
        "checkpoint": {"steps": 10},
    },
    "short-names": {
        **SHORT,
        "method": "grpo",
        "dataset": {"uri": "configmap://rows/kubernetes-short-names.jsonl", "maxSamples": 16, "contentMaxLength": 12},
        "grpo": {"maxNumSeqs": 8, "rewardFunctions": [{"type": "length", "maxTokens": 6}]},
    },
    "preferences": {**SHORT, "method": "dpo", "dataset": {"uri": "configmap://rows/kubernetes-preferences.jsonl", "maxSamples": 16}},
    "no-data": {"dataset": {"uri": "configmap://rows/nowhere.jsonl"}},
}
"""One that is paused, resumed and goes on; two of methods with numbers of their own, which finish; one that fails."""


def test_every_panel_shows_something(tmp_path: Path, platform: Platform, namespace: Kubectl, run_job: JobFactory) -> None:
    """T-03, T-11, U-02: of real jobs, but for what only GPUs have."""
    files = (ROOT / "examples/data" / f"kubernetes-{name}.jsonl" for name in ("short-names", "preferences"))
    namespace("create", "configmap", "rows", *(f"--from-file={file}" for file in files))
    namespace("apply", "-f", str(ROOT / "examples/budget.yaml"))
    begun = time.time()
    with (
        platform.kubectl.proxy() as port,
        discovery([platform.kubectl.within(SYSTEM_NAMESPACE), namespace], port) as scrape,
        serve(tmp_path, [scrape], interval=f"{SCRAPE_SECONDS:.0f}s") as prometheus,
    ):
        jobs = {name: run_job(name, spec) for name, spec in JOBS.items()}
        running = jobs["paused-once"]
        running.wait_step(10)
        running.scale(0)
        running.wait_phase("Paused")
        running.scale(1)
        jobs["no-data"].wait_phase("Failed")
        for name in ("short-names", "preferences"):
            jobs[name].wait_phase("Succeeded")
        running.wait_training(run=2)
        running.wait_step(20)

        def all_shown() -> bool:
            view = View(prometheus, begun, time.time(), SCRAPE_SECONDS, points=60)
            chosen = {title: of_namespace(namespace, name) for title, name in OF_A_METHOD.items()}
            empty = empty_panels(view, of_namespace(namespace, "paused-once"), chosen)
            assert [query for query in empty if query not in EXEMPT] == []
            return True

        eventually(all_shown, within=60, what="an answer to every query", every=2)


def of_namespace(namespace: Kubectl, job: str) -> dict[str, str]:
    """What is chosen on the dashboard Job."""
    return {"namespace": namespace.namespace, "name": job}
