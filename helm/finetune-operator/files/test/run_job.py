#!/usr/bin/env python3
"""Create a FineTuneJob, follow it to its end and delete it: ``run_job.py MANIFEST SECONDS``. Exit code 0 only for Succeeded.

Runs in the operator image, with a ServiceAccount that may touch FineTuneJobs of one namespace and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

GROUP, VERSION, PLURAL = "finetune.dev", "v1alpha1", "finetunejobs"
ENDS = ("Succeeded", "Failed", "Cancelled")
MERGE_PATCH = "application/merge-patch+json"


class Jobs:
    """FineTuneJobs of one name in one namespace."""

    def __init__(self, namespace: str, name: str) -> None:
        self._api = client.CustomObjectsApi()
        self._namespace, self._name = namespace, name

    def create(self, manifest: dict[str, Any]) -> None:
        """Create the job."""
        self._api.create_namespaced_custom_object(GROUP, VERSION, self._namespace, PLURAL, manifest)

    def get(self) -> dict[str, Any] | None:
        """The job as it is, None if there is none."""
        try:
            found: dict[str, Any] = self._api.get_namespaced_custom_object(GROUP, VERSION, self._namespace, PLURAL, self._name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None
        return found

    def delete(self, seconds: float) -> None:
        """Delete the job, running or not, and wait until it is gone."""
        if self.get() is None:
            return
        allow = {"metadata": {"annotations": {"finetune.dev/allow-delete-running": "true"}}}
        self._api.patch_namespaced_custom_object(GROUP, VERSION, self._namespace, PLURAL, self._name, allow, _content_type=MERGE_PATCH)
        self._api.delete_namespaced_custom_object(GROUP, VERSION, self._namespace, PLURAL, self._name)
        deadline = time.monotonic() + seconds
        while self.get() is not None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"FineTuneJob {self._namespace}/{self._name} is still there {seconds:g} s after its deletion")
            time.sleep(1)

    def follow(self, seconds: float) -> dict[str, Any]:
        """Say each change of phase; return the status at the end, or at the time limit."""
        deadline = time.monotonic() + seconds
        phase = ""
        while True:
            status: dict[str, Any] = (self.get() or {}).get("status", {})
            if status.get("phase", "") != phase:
                phase = str(status.get("phase", ""))
                say(phase=phase, reason=status.get("reason"), step=status.get("progress", {}).get("step"))
            if phase in ENDS or time.monotonic() > deadline:
                return status
            time.sleep(1)


def say(**facts: object) -> None:
    """Write a JSON line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(manifest_file: str, seconds: str) -> int:
    """Run the job from nothing to nothing."""
    config.load_incluster_config()
    manifest = yaml.safe_load(Path(manifest_file).read_text(encoding="utf-8"))
    jobs = Jobs(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
    jobs.delete(60)
    jobs.create(manifest)
    status = jobs.follow(float(seconds))
    if status.get("phase") != "Succeeded":
        said = {condition["type"]: condition["message"] for condition in status.get("conditions", []) if condition.get("message")}
        say(problem="the job did not succeed; it is left in place", failure=status.get("failure"), conditions=said)
        return 1
    say(adapter=status.get("artifacts", {}).get("finalUri"), loss=status.get("progress", {}).get("loss"))
    jobs.delete(120)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
