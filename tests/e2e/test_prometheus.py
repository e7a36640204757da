"""A real Prometheus finds the pods by their annotations; every panel of every dashboard shows something of real jobs (T-03, T-11, U-02)."""

from __future__ import annotations

import time
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
}
"""Queries that have no answer here, and why."""
OF_A_METHOD: Final = {"Reward": "short-names", "Distance to the reference": "short-names", "Accuracy of preferences": "preferences"}
"""Panels that show something for jobs of some methods alone, and such a job."""


def by_annotations(kubeconfig: Path, port: int, *namespaces: str) -> dict[str, Any]:
    """Pods that say where their metrics are (prometheus.io/*), as people scrape them, but through the API server's proxy."""
    meta, annotation = "__meta_kubernetes_pod", "__meta_kubernetes_pod_annotation_prometheus_io"
    page = [f"{meta}_name", f"{annotation}_port", f"{annotation}_path"]
    return {
        "job_name": "pods",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig), "namespaces": {"names": list(namespaces)}}],
        "relabel_configs": [
            {"action": "keep", "source_labels": [f"{annotation}_scrape", f"{meta}_phase"], "regex": "true;Running"},
            {
                "source_labels": ["__meta_kubernetes_namespace", *page],
                "regex": "(.+);(.+);(.+);(.+)",
                "target_label": "__metrics_path__",
                "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy$4",
            },
            {"target_label": "__address__", "replacement": f"127.0.0.1:{port}"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            *({"source_labels": [f"{meta}_name"], "target_label": label} for label in ("pod", "instance")),
        ],
    }


SHORT: Final = {"training": {"gradAccumSteps": 2, "maxSteps": 4}}
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


def test_every_panel_shows_something(tmp_path: Path, kubeconfig: Path, platform: Platform, namespace: Kubectl, run_job: JobFactory) -> None:
    """T-03, T-11, U-02: of real jobs, but for what only GPUs have."""
    files = (ROOT / "examples/data" / f"kubernetes-{name}.jsonl" for name in ("short-names", "preferences"))
    namespace("create", "configmap", "rows", *(f"--from-file={file}" for file in files))
    begun = time.time()
    with platform.kubectl.proxy() as port:
        scrape = by_annotations(kubeconfig, port, SYSTEM_NAMESPACE, namespace.namespace)
        with serve(tmp_path, [scrape], interval=f"{SCRAPE_SECONDS:.0f}s") as prometheus:
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
