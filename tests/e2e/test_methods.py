"""A real job of each method: the example's data through ConfigMaps, on one CPU pod, to a result and the method's own numbers in status."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.platform import ROOT, Kubectl

pytestmark = pytest.mark.e2e

DATA: Final = ROOT / "examples/data"
JOBS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "pretrain": ("kubernetes-text", {"adapter": None}, ""),
    "dpo": ("kubernetes-preferences", {}, "rewards/margins"),
    "reward": ("kubernetes-preferences", {}, "mean_reward"),
    "kto": ("kubernetes-verdicts", {}, "kl"),
    "grpo": (
        "kubernetes-short-names",
        {
            "dataset": {"contentMaxLength": 12},
            "grpo": {
                "maxNumSeqs": 8,
                "rewardFunctions": [
                    {"type": "length", "maxTokens": 6},
                    {"type": "python", "source": "configmap://rewards/reward.py", "function": "lower_case"},
                ],
            },
        },
        "reward",
    ),
}
"""Data, what the job says beside the method, and a number its status must show."""
CHOSEN = list(JOBS) if os.environ.get("FINETUNE_SOAK") or os.environ.get("FINETUNE_MATRIX") else ["dpo", "grpo"]


@pytest.mark.parametrize("method", CHOSEN)
def test_a_job_of_each_method(namespace: Kubectl, run_job: JobFactory, method: str) -> None:
    """B-04 to B-07: it succeeds, its result is in the store, and its numbers are in status."""
    data, spec, shown = JOBS[method]
    namespace("create", "configmap", f"rows-{method}", f"--from-file=rows.jsonl={DATA / data}.jsonl")
    if method == "grpo":
        namespace("create", "configmap", "rewards", f"--from-file={DATA / 'reward.py'}")
    dataset = {"uri": f"configmap://rows-{method}/rows.jsonl", "maxSamples": 16, **spec.get("dataset", {})}
    job = run_job(method, {**spec, "method": method, "dataset": dataset, "training": {"gradAccumSteps": 2, "maxSteps": 4}})
    status = job.wait_phase("Succeeded")
    assert status["artifacts"]["finalUri"].endswith("/final")
    if shown:
        assert shown in status["progress"]["metrics"]
