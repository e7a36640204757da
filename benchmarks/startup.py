"""Apply to first optimizer step: a FineTuneJob against the same pod started as a bare Job, alternately.

The bare Job is the operator's own (image, arguments, volumes, run config), copied once, with a store prefix of its own each time and
nobody to report to. The image is on the node, and a CPU job needs no preflight. Both are watched by the same loop, which reads the pod's
metrics through the API server; a run is removed as soon as its first step is seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client, utils
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.environment import namespace, platform
from benchmarks.report import Verdict, machine, pairs, show
from finetune_api.constants import ANNOTATION_ALLOW_DELETE, GROUP, PLURAL, VERSION, run_name
from finetune_api.contract import metrics as names
from finetune_api.contract.env import METRICS_PORT
from finetune_api.contract.run_config import RunConfig
from tests.support.jobs import make_job
from tests.support.platform import Kubectl, eventually

BAR = 1.3
NAMESPACE = "bench-startup"
SPEC: dict[str, Any] = {"resources": {"cpu": "500m"}, "training": {"maxSteps": 2000}, "checkpoint": {"strategy": "no"}}
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 300.0


@dataclass
class Timeline:
    """Seconds from the first request to each mark."""

    began: float = field(default_factory=time.monotonic)
    marks: dict[str, float] = field(default_factory=dict)

    def note(self, mark: str, *, reached: bool) -> bool:
        """Note when a mark is first reached."""
        if reached and mark not in self.marks:
            self.marks[mark] = time.monotonic() - self.began
        return reached


MARKS = ("pod", "running", "first step")


class Pods:
    """Looks at the one pod of a Job."""

    def __init__(self, namespace: str) -> None:
        self._api, self._namespace = client.CoreV1Api(), namespace

    def watch_start(self, job: str, timeline: Timeline) -> None:
        """Note the marks until the first optimizer step is done."""
        while not self._look(job, timeline):
            if time.monotonic() - timeline.began > PATIENCE_SECONDS:
                raise SystemExit(f"{job}: no optimizer step after {PATIENCE_SECONDS:.0f} s; reached: {timeline.marks}")
            time.sleep(POLL_SECONDS)

    def wait_gone(self, job: str) -> None:
        """Wait until the pod is gone, so that it takes nothing from the next run."""
        eventually(lambda: self._pod(job) is None, within=120, what=f"pods of {job} are gone")

    def _look(self, job: str, timeline: Timeline) -> bool:
        pod = self._pod(job)
        if not timeline.note("pod", reached=pod is not None):
            return False
        running = any(status.state.running for status in pod.status.container_statuses or ())
        if not timeline.note("running", reached=running):
            return False
        return timeline.note("first step", reached=self._step(pod.metadata.name) >= 1)

    def _pod(self, job: str) -> Any:
        found = self._api.list_namespaced_pod(self._namespace, label_selector=f"batch.kubernetes.io/job-name={job}").items
        return found[0] if found else None

    def _step(self, pod: str) -> float:
        """The pod's step by its metrics; 0 while it does not serve them."""
        try:
            text = self._api.connect_get_namespaced_pod_proxy_with_path(f"{pod}:{METRICS_PORT}", self._namespace, "metrics")
        except client.ApiException:
            return 0.0
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return next((sample.value for sample in samples if sample.name == names.STEP), 0.0)


class FineTuneJobs:
    """Starts FineTuneJobs."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._pods = Pods(kubectl.namespace)

    def start(self, name: str) -> Timeline:
        """From the request to the first step; the job is removed."""
        api = client.CustomObjectsApi()
        document = make_job(name, SPEC)
        timeline = Timeline()
        api.create_namespaced_custom_object(GROUP, VERSION, self._kubectl.namespace, PLURAL, document)
        self._pods.watch_start(run_name(name, 1), timeline)
        self.remove(name)
        return timeline

    def remove(self, name: str) -> None:
        """Delete a job, training or not, and wait for its pods."""
        self._kubectl("annotate", "finetunejob", name, f"{ANNOTATION_ALLOW_DELETE}=true", "--overwrite")
        self._kubectl("delete", "finetunejob", name, "--wait=true")
        self._pods.wait_gone(run_name(name, 1))


class BareJobs:
    """Starts copies of a run's Job without the operator."""

    def __init__(self, kubectl: Kubectl, run: str) -> None:
        self._kubectl = kubectl
        self._pods = Pods(kubectl.namespace)
        config, job = kubectl.get("configmap", run), kubectl.get("job", run)
        if config is None or job is None:
            raise SystemExit(f"the run {run} is gone")
        self._config = RunConfig.model_validate_json(config["data"]["config.json"])
        self._template: dict[str, Any] = job["spec"]["template"]["spec"]

    def start(self, name: str) -> Timeline:
        """From the first request to the first step; the Job is removed."""
        documents, api = self._documents(name), client.ApiClient()
        timeline = Timeline()
        for document in documents:
            utils.create_from_dict(api, document, namespace=self._kubectl.namespace)
        self._pods.watch_start(name, timeline)
        self._kubectl("delete", "job,service,configmap", name, "--wait=true", "--cascade=foreground")
        self._pods.wait_gone(name)
        return timeline

    def _documents(self, name: str) -> list[dict[str, Any]]:
        """ConfigMap, Service and Job, as a person would write them."""
        store = self._config.store.model_copy(update={"uri": f"{self._config.store.uri}/{name}"})
        config = self._config.model_copy(update={"store": store, "progress": None})
        template: dict[str, Any] = json.loads(json.dumps(self._template)) | {"subdomain": name}
        next(volume for volume in template["volumes"] if volume["name"] == "run")["configMap"]["name"] = name
        labels = {"benchmark": name}
        spec = {"completions": 1, "parallelism": 1, "completionMode": "Indexed", "backoffLimit": 0}
        job = {**spec, "template": {"metadata": {"labels": labels}, "spec": template}}
        metadata = {"name": name}
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.json": config.to_json()}},
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None", "selector": labels}},
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job},
        ]


def alternate(first: Callable[[str], Timeline], second: Callable[[str], Timeline], repeats: int) -> tuple[list[Timeline], list[Timeline]]:
    """Run both sides in turn."""
    timelines: tuple[list[Timeline], list[Timeline]] = ([], [])
    for number in range(repeats):
        timelines[0].append(first(f"ours-{number}"))
        timelines[1].append(second(f"bare-{number}"))
    return timelines


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="starts of each side (default: %(default)s)")
    options = parser.parse_args()
    before = machine()
    with platform() as cluster, namespace(cluster.kubectl, NAMESPACE) as kubectl:
        # The first start also brings the image to the node; the bare Job is made from it.
        jobs = FineTuneJobs(kubectl)
        kubectl.apply(make_job("warm-up", SPEC))
        Pods(NAMESPACE).watch_start(run_name("warm-up", 1), Timeline())
        bare = BareJobs(kubectl, run_name("warm-up", 1))
        jobs.remove("warm-up")
        ours, base = alternate(jobs.start, bare.start, options.repeats)
    rows = []
    for mark in MARKS:
        compared = pairs([timeline.marks[mark] for timeline in ours], [timeline.marks[mark] for timeline in base])
        verdict = Verdict(compared.ratio, BAR).text if mark == MARKS[-1] else ""
        rows.append((f"to {mark}", f"{compared.ours:.2f}", f"{compared.base:.2f}", compared.text, verdict))
    show(
        "From apply to the first optimizer step, seconds",
        ("", "FineTuneJob", "bare Job", "ratio", f"bar {BAR}"),
        rows,
        notes=[before, machine()],
    )


if __name__ == "__main__":
    main()
