"""The two sides of a comparison on this machine: a workload under the supervisor, and the same as a plain TRL script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from benchmarks.cpu import CpuMeter, per_step
from benchmarks.pod import ENV_TOKEN
from benchmarks.workload import Workload
from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.progress import ProgressReply
from finetune_api.contract.run_config import JobIdentity, ProgressConfig, RunConfig, StoreConfig, Topology
from finetune_api.contract.store import Manifest
from finetune_api.resolve import resolve
from tests.support.minio import ACCESS_KEY, MinioServer, minio_binary, running_minio
from tests.support.ports import free_port

BUCKET = "finetune"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Measured:
    """What one run showed."""

    steps: list[float]
    """Seconds of each optimizer step, without waits for saves."""
    stalls: list[float]
    """Seconds training waited for each save while it went on, the last step's not among them; our side knows only their mean."""
    cpu: list[float]
    """CPU seconds of rank 0's process per step, saves excluded."""
    trainable: int
    """Trained parameters: both sides must agree."""
    checkpoint_bytes: list[int]
    """Sizes of the checkpoints complete in the store."""
    tokens: list[int]
    """Tokens of each step's rows, padding not counted."""
    peak_bytes: int
    """Most memory in use at once: of the GPU, else of rank 0's process."""
    anonymous_bytes: int = 0
    """Most main memory of rank 0's process without mapped files, after its first step; not known to the plain side."""
    parameters: int = 0
    """Of the model with its adapter; known to the plain side."""
    missing: str = ""
    """What the optimized backend had to go without."""


class Operator(BaseHTTPRequestHandler):
    """Answers progress posts, so that reporting costs what it costs in a cluster (without TLS)."""

    protocol_version = "HTTP/1.1"
    posts: ClassVar[int] = 0
    facts: ClassVar[dict[str, str]] = {}
    """What the last run found out."""
    gpu_bytes: ClassVar[int] = 0
    """Peak of the last run's GPU."""

    def do_POST(self) -> None:
        """Accept a post."""
        post = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["finetune"]
        Operator.facts = post.get("facts") or Operator.facts
        Operator.gpu_bytes = post.get("gpuMemoryBytes") or Operator.gpu_bytes
        body = ProgressReply(contract_version=CONTRACT_VERSION).to_json().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def progress_endpoint() -> Iterator[str]:
    """URL of an endpoint that takes posts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Operator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/progress"
    finally:
        server.shutdown()


@contextmanager
def local_bench() -> Iterator[tuple[Bench, Path]]:
    """A bench in a directory of its own, with a MinIO server and a progress endpoint."""
    binary = minio_binary()
    if binary is None:
        raise SystemExit("no MinIO program: run `make minio`, or set FINETUNE_MINIO to one")
    with (
        tempfile.TemporaryDirectory(prefix="finetune-bench-") as name,
        running_minio(Path(name) / "minio", binary) as minio,
        progress_endpoint() as url,
    ):
        yield Bench(Path(name), minio, url), Path(name)


def _stalls(manifests: list[Manifest], save_every: int) -> list[float]:
    """The mean wait for a save, once for each save between the first and the last manifest.

    A manifest counts what all saves before it took, to their ends, and of its own what training waited for at once.
    """
    if len(manifests) < 2:
        return []
    first, *_, last = sorted(manifests, key=lambda manifest: manifest.step)
    saves = (last.step - first.step) // save_every
    return [(last.usage.checkpointing - first.usage.checkpointing) / saves] * saves


class Bench:
    """Runs workloads in numbered directories, against one MinIO."""

    def __init__(self, directory: Path, minio: MinioServer, progress_url: str) -> None:
        self._directory, self._minio, self._progress_url = directory, minio, progress_url
        self._client = minio.client()
        self._secret = minio.write_secret(directory / "secrets" / env.SECRET_STORE)
        self._serial = 0
        (directory / "token").write_text("token")
        if not self._client.bucket_exists(BUCKET):
            self._client.make_bucket(BUCKET)

    def supervised(self, workload: Workload) -> Measured:
        """Train under the real supervisor: uploads to MinIO, progress posts, metrics endpoint."""
        directory = self._next("supervised")
        Operator.facts, Operator.gpu_bytes = {}, 0
        prefix = directory.name
        config = self._config(workload, prefix)
        (directory / "config.json").write_text(config.to_json())
        own = {
            env.ENV_RUN_CONFIG: directory / "config.json",
            env.ENV_WORK_DIR: directory / "work",
            env.ENV_CACHE_DIR: self._directory / "cache",
            env.ENV_SECRETS_DIR: self._directory / "secrets",
            env.ENV_PVC_DIR: workload.inputs.parent,
            env.ENV_TERMINATION_MESSAGE: directory / "termination.json",
            env.ENV_METRICS_PORT: free_port(),
            ENV_TOKEN: self._directory / "token",
        }
        environment = {**_environment(workload), **{name: str(value) for name, value in own.items()}}
        meter = _run([sys.executable, "-m", "benchmarks.pod"], environment, directory)
        rows = [json.loads(line) for line in (directory / "work/metrics.jsonl").read_text().splitlines()]
        manifests = self._manifests(prefix)
        if workload.backend == "optimized" and "backendParts" not in Operator.facts:
            raise SystemExit("the run never told what the optimized backend had to go without: take more steps")
        return Measured(
            steps=[row["seconds"] for row in rows],
            stalls=_stalls([manifest for manifest in manifests if manifest.trigger == "steps"], workload.save_every),
            cpu=per_step(meter.marks, workload.save_every),
            trainable=self._trainable(prefix),
            checkpoint_bytes=[manifest.size_bytes for manifest in manifests],
            tokens=[row["tokens"] for row in rows],
            peak_bytes=Operator.gpu_bytes or meter.peak_bytes,
            anonymous_bytes=meter.anonymous_bytes,
            missing=Operator.facts.get("backendMissing", ""),
        )

    def plain(self, workload: Workload, *, save: bool) -> Measured:
        """Train with the plain script; ``save``: with Trainer's own saves, each uploaded before training goes on."""
        directory = self._next("plain")
        arguments = workload.plain_arguments(directory)
        environment = {**_environment(workload), "HF_HOME": str(self._directory / "huggingface"), "HF_HUB_OFFLINE": "1"}
        if save:
            arguments += ["--save-every", str(workload.save_every), "--bucket", f"s3://{BUCKET}/{directory.name}"]
            environment |= {
                "AWS_ENDPOINT_URL": self._minio.endpoint,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": self._minio.secret_key,
            }
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workload.ranks}"] if workload.ranks > 1 else []
        _run([sys.executable, *launcher, "-m", "benchmarks.plain_trl", *arguments], environment, directory)
        measured = json.loads((directory / "measured.json").read_text())
        return Measured(checkpoint_bytes=[], **measured)

    def _config(self, workload: Workload, prefix: str) -> RunConfig:
        return RunConfig(
            contract_version=CONTRACT_VERSION,
            job=JobIdentity(name=prefix, namespace="bench", uid=prefix),
            run=1,
            spec=resolve(workload.spec()).spec,
            topology=Topology(
                replicas=1, processes_per_replica=workload.ranks, device=workload.device, master_addr="localhost", master_port=free_port()
            ),
            store=StoreConfig(uri=f"s3://{BUCKET}/{prefix}"),
            progress=ProgressConfig(url=self._progress_url),
        )

    def _next(self, side: str) -> Path:
        self._serial += 1
        directory = self._directory / f"{side}-{self._serial}"
        directory.mkdir()
        return directory

    def _read(self, name: str) -> bytes:
        response = self._client.get_object(BUCKET, name)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def _manifests(self, prefix: str) -> list[Manifest]:
        names = [str(item.object_name) for item in self._client.list_objects(BUCKET, f"{prefix}/a1/", recursive=True)]
        return [Manifest.model_validate_json(self._read(name)) for name in names if name.endswith("/manifest.json")]

    def _trainable(self, prefix: str) -> int:
        return int(json.loads(self._read(f"{prefix}/lineage.json"))["facts"]["trainableParameters"])


def _environment(workload: Workload) -> dict[str, str]:
    """Both sides get the same threads and nothing to download."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(workload.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
    }


def _run(command: list[str], environment: dict[str, str], directory: Path) -> CpuMeter:
    """Run to the end; a failure shows the last of its output.

    Returns CPU time by step and memory of rank 0 where the program writes a worker's metrics.
    """
    log = directory / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        with CpuMeter(process.pid, directory / "work/metrics.jsonl") as meter:
            code = process.wait()
    if code:
        raise SystemExit(f"{' '.join(command[:4])} ended with {code}:\n{log.read_text()[-4000:]}")
    return meter
