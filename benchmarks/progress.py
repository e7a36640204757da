"""200 progress posts a second from 300 training jobs to the operator in the cluster: what it costs, and how old the status gets.

The posts are what a trainer sends (step, loss, a new number every time), each job over a TLS connection of its own and with the token of
its own pod, which the operator lets the API server review. No pod trains: the pods are objects (see :mod:`benchmarks.crowd`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from kubernetes import client

from benchmarks.crowd import Trainer, crowd
from benchmarks.environment import OPERATOR, connect, operator_metrics, operator_pod, scrape
from benchmarks.report import Verdict, machine, percentile, show
from finetune_api.constants import CA_CONFIGMAP, GROUP, PLURAL, VERSION
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import FineTuneProgress, ProgressPost, TrainerStatus, progress_path
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl

NAMESPACE = "bench-progress"
PORT = 8443
CPU_BAR, WRITES_BAR, AGE_BAR = 0.5, 20.0, 15.0
TOTAL_STEPS = 1_000_000
SAMPLE_SECONDS = 3.0


@dataclass
class Tally:
    """What came of the posts."""

    codes: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    """Age of ``status.progress`` of every job, at every sample."""

    def clear(self) -> None:
        """Forget the warm-up."""
        self.codes.clear()
        self.seconds.clear()
        self.ages.clear()


@dataclass(frozen=True)
class Endpoint:
    """The operator's progress endpoint as this machine reaches it."""

    address: str
    server_name: str
    tls: ssl.SSLContext


def find_endpoint(kubectl: Kubectl) -> Endpoint:
    """Look up the pod's address; the certificate is checked against the name trainers use, with the CA they are given."""
    ca = kubectl.within(NAMESPACE).get("configmap", CA_CONFIGMAP)
    if ca is None:
        raise SystemExit(f"no ConfigMap {CA_CONFIGMAP} in {NAMESPACE}: the operator has not published its CA")
    host = urlsplit(f"https://{OPERATOR}.{SYSTEM_NAMESPACE}.svc").hostname
    return Endpoint(f"https://{operator_pod().status.pod_ip}:{PORT}", host or "", ssl.create_default_context(cadata=ca["data"]["ca.crt"]))


def body(step: int, run: int) -> str:
    """A post in the middle of training."""
    progress = FineTuneProgress(
        contract_version=CONTRACT_VERSION,
        run=run,
        attempt=1,
        phase="Training",
        counter=step,
        step=step,
        total_steps=TOTAL_STEPS,
        epoch=step / 1000,
        loss=2.0 + 1.0 / (1 + step),
        learning_rate=1e-4,
        grad_norm=1.0 + 1.0 / (1 + step),
        tokens_per_second=1000.0 + step % 100,
        step_seconds=1.0,
        tokens_seen=1000 * step,
        facts={"dtype": "bfloat16", "trainableParameters": "598016", "totalParameters": "8000000"},
    )
    stock = TrainerStatus(last_updated_time=datetime.now(UTC).isoformat(), progress_percentage=0)
    return ProgressPost(trainer_status=stock, finetune=progress).to_json()


async def train(trainer: Trainer, endpoint: Endpoint, every: float, offset: float, tally: Tally) -> None:
    """Post as one trainer does, until cancelled."""
    headers = {"Authorization": f"Bearer {trainer.token}", "Content-Type": "application/json"}
    url = endpoint.address + progress_path(NAMESPACE, trainer.job)
    connector = aiohttp.TCPConnector(limit=1, ssl=endpoint.tls)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(10)) as session:
        due, step = time.monotonic() + offset, 0
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due, step = due + every, step + 1
            began = time.monotonic()
            try:
                async with session.post(url, data=body(step, trainer.run), server_hostname=endpoint.server_name) as response:
                    await response.read()
                    tally.codes[response.status] += 1
            except (aiohttp.ClientError, TimeoutError):
                tally.codes[0] += 1
            tally.seconds.append(time.monotonic() - began)


async def sample_ages(tally: Tally) -> None:
    """Look at the statuses now and then, as somebody who lists the jobs does."""
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        listed: Any = await asyncio.to_thread(client.CustomObjectsApi().list_namespaced_custom_object, GROUP, VERSION, NAMESPACE, PLURAL)
        now = datetime.now(UTC)
        for job in listed["items"]:
            written = job.get("status", {}).get("progress", {}).get("updatedAt")
            tally.ages.append((now - datetime.fromisoformat(written)).total_seconds() if written else float("inf"))


async def load(
    trainers: Sequence[Trainer], endpoint: Endpoint, rate: float, metrics: str, options: argparse.Namespace
) -> tuple[Tally, dict[str, float]]:
    """Post for a while; what the operator's counters gained per second after the warm-up."""
    every, tally = len(trainers) / rate, Tally()
    tasks = [
        asyncio.create_task(train(trainer, endpoint, every, every * number / len(trainers), tally))
        for number, trainer in enumerate(trainers)
    ]
    tasks.append(asyncio.create_task(sample_ages(tally)))
    await asyncio.sleep(options.warm_up)
    tally.clear()
    before, began = await asyncio.to_thread(scrape, metrics), time.monotonic()
    await asyncio.sleep(options.seconds)
    after, seconds = await asyncio.to_thread(scrape, metrics), time.monotonic() - began
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    gained = {key: after[key] - before.get(key, 0.0) for key in after}
    return tally, {
        "cpu": gained[("process_cpu_seconds_total",)] / seconds,
        "posts": sum(tally.codes.values()) / seconds,
        "writes": sum(value for key, value in gained.items() if _is_status_write(key)) / seconds,
        "memory": after[("process_resident_memory_bytes",)] / 1e6,
    }


def _is_status_write(key: tuple[str, ...]) -> bool:
    return key[0] == "finetune_operator_api_requests_total" and "patch" in key and f"{PLURAL}/status" in key


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="training jobs (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="posts per second, all jobs together (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds before measuring (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of measuring (default: %(default)s)")
    options = parser.parse_args()
    kubectl, before = connect(), machine()
    with operator_metrics(kubectl) as metrics, crowd(kubectl, NAMESPACE, options.jobs) as trainers:
        report(options, *asyncio.run(load(trainers, find_endpoint(kubectl), options.rate, metrics, options)), notes=[before, machine()])


def report(options: argparse.Namespace, tally: Tally, gained: dict[str, float], *, notes: list[str]) -> None:
    """Print the figures beside their bars."""
    refused = {code: count for code, count in tally.codes.items() if code != 200}
    age = max(tally.ages)
    rows = [
        ("posts per second", f"{gained['posts']:.0f}", f"not accepted: {refused or 'none'}"),
        ("operator, cores", f"{gained['cpu']:.2f}", f"below {CPU_BAR}: {Verdict(gained['cpu'], CPU_BAR).text}"),
        ("status writes per second", f"{gained['writes']:.1f}", f"at most {WRITES_BAR:g}: {Verdict(gained['writes'], WRITES_BAR).text}"),
        ("age of status, p50 s", f"{percentile(tally.ages, 0.5):.1f}", ""),
        ("age of status, max s", f"{age:.1f}", f"at most {AGE_BAR:g}: {Verdict(age, AGE_BAR).text}"),
        ("answer, p50 ms", f"{1000 * percentile(tally.seconds, 0.5):.1f}", ""),
        ("answer, p99 ms", f"{1000 * percentile(tally.seconds, 0.99):.1f}", ""),
        ("operator memory, MB", f"{gained['memory']:.0f}", ""),
    ]
    show(
        f"{options.jobs} training jobs post {options.rate:g} times a second for {options.seconds:g} s",
        ("", "", "bar"),
        rows,
        notes=notes,
    )


if __name__ == "__main__":
    main()
