"""What e2e tests stand on: kubectl, the installed chart, the store, and jobs made from Python."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from minio import Minio

ROOT = Path(__file__).parents[2]
RELEASE = "finetune"
SYSTEM_NAMESPACE = "finetune-system"
BUCKET = "finetune"
T = TypeVar("T")


def eventually(check: Callable[[], T | None], *, within: float, what: str, every: float = 0.5) -> T:
    """The first truthy result of ``check``; fails with ``what`` after ``within`` seconds.

    An AssertionError of ``check`` counts as not yet.
    """
    deadline = time.monotonic() + within
    reason = ""
    while True:
        try:
            result = check()
        except AssertionError as error:
            result, reason = None, str(error)
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what} {reason}")
        time.sleep(every)


class Kubectl:
    """kubectl bound to one kubeconfig and namespace."""

    def __init__(self, kubeconfig: Path, namespace: str = "default") -> None:
        self.namespace = namespace
        self._kubeconfig = kubeconfig

    def within(self, namespace: str) -> Kubectl:
        """The same for another namespace."""
        return Kubectl(self._kubeconfig, namespace)

    @property
    def environment(self) -> dict[str, str]:
        """Environment for tools that read KUBECONFIG."""
        return {**os.environ, "KUBECONFIG": str(self._kubeconfig)}

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl; a failure shows its stderr."""
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of a command that must work."""
        return self.run(*arguments, stdin=stdin).stdout

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, None if it is not there."""
        done = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind that match a label selector."""
        return list(json.loads(self("get", kind, "-o", "json", *(["-l", selector] if selector else [])))["items"])

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Kubectl apply of objects."""
        self("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def port_forward(self, target: str, port: int) -> contextlib.AbstractContextManager[int]:
        """Forward a local port to ``target``; yields the local port."""
        return self._serving("port-forward", target, f":{port}")

    def proxy(self) -> contextlib.AbstractContextManager[int]:
        """Serve the API server on a local port, without a password; yields the port."""
        return self._serving("proxy", "--port=0")

    @contextlib.contextmanager
    def _serving(self, *arguments: str) -> Iterator[int]:
        """Run a kubectl that says on which local port it listens."""
        process = subprocess.Popen(
            ["kubectl", "-n", self.namespace, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert match, f"kubectl {' '.join(arguments)}: {line}"
            yield int(match[1])
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@dataclass(frozen=True)
class StepRow:
    """One optimizer step as recorded in metrics.jsonl."""

    attempt: int
    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    samples: str


class StoreConnection:
    """A client of the embedded store through a port-forward."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl.within(SYSTEM_NAMESPACE)
        self._open = contextlib.ExitStack()
        secret = self._kubectl.get("secret", "finetune-storage")
        assert secret is not None
        keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
        self._keys = keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]

    def connect(self) -> Minio:
        """Connect anew, for the first time or after the store's pod was replaced."""
        self.close()
        port = self._open.enter_context(self._kubectl.port_forward("service/finetune-minio", 9000))
        store = Minio(f"127.0.0.1:{port}", *self._keys, secure=False)
        eventually(lambda: store.bucket_exists(BUCKET), within=60, what=f"bucket {BUCKET}")
        return store

    def close(self) -> None:
        """End the port-forward."""
        self._open.close()


@dataclass
class Platform:
    """The installed chart with its store."""

    kubectl: Kubectl
    connection: StoreConnection
    images: Mapping[str, str]
    store: Minio = field(init=False)

    def __post_init__(self) -> None:
        self.reconnect()

    def reconnect(self) -> None:
        """Connect to the store (again)."""
        self.store = self.connection.connect()

    def objects(self, prefix: str) -> dict[str, int]:
        """Keys below a prefix of the bucket, with sizes."""
        return {str(item.object_name): int(item.size or 0) for item in self.store.list_objects(BUCKET, prefix, recursive=True)}

    def read(self, key: str) -> bytes:
        """Bytes of an object."""
        response = self.store.get_object(BUCKET, key)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()


class Job:
    """A FineTuneJob under test."""

    def __init__(self, platform: Platform, kubectl: Kubectl, name: str) -> None:
        self.platform, self.kubectl, self.name = platform, kubectl, name

    @property
    def object(self) -> dict[str, Any]:
        """The object now."""
        found = self.kubectl.get("finetunejob", self.name)
        assert found is not None, f"{self.name} is gone"
        return found

    @property
    def status(self) -> dict[str, Any]:
        """Its status now."""
        return dict(self.object.get("status", {}))

    @property
    def phase(self) -> str:
        """status.phase."""
        return str(self.status.get("phase", ""))

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition by type; empty when absent."""
        return next((dict(c) for c in self.status.get("conditions", []) if c["type"] == kind), {})

    def pods(self) -> list[dict[str, Any]]:
        """Pods of the job."""
        return self.kubectl.items("pods", f"finetune.dev/job={self.name}")

    def pod(self, index: int) -> str:
        """Name of the running pod with this index in the newest run."""
        pods = [p for p in self.pods() if p["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index") == str(index)]
        running = [p for p in pods if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]
        assert running, f"no running pod {index} of {self.name}"
        return str(max(running, key=lambda p: str(p["metadata"]["creationTimestamp"]))["metadata"]["name"])

    def wait_phase(self, *phases: str, within: float = 480) -> dict[str, Any]:
        """Wait for one of these phases; an unexpected end fails at once with the story."""

        def check() -> dict[str, Any] | None:
            status = self.status
            phase = status.get("phase")
            if phase in phases:
                return status
            if phase in {"Failed", "Succeeded", "Cancelled"}:
                raise RuntimeError(f"{self.name} is {phase}, expected {phases}\n{self.story()}")
            return None

        try:
            return eventually(check, within=within, what=f"{self.name} in {phases}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error

    def wait_step(self, step: int, within: float = 240) -> int:
        """Wait until progress shows at least this step."""

        def check() -> int | None:
            status = self.status
            if status.get("phase") == "Failed":
                raise RuntimeError(self.story())
            reached = int(status.get("progress", {}).get("step", 0))
            return reached if reached >= step else None

        try:
            return eventually(check, within=within, what=f"{self.name} at step {step}", every=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from error

    def wait_training(self, *, run: int, within: float = 240) -> None:
        """Wait until this run, or a later one, trains or has trained."""

        def check() -> bool:
            status = self.status
            reached = status.get("run", 0) >= run and status.get("progress", {}).get("run", 0) >= run
            return reached and status.get("phase") in {"Training", "Evaluating", "Exporting", "Succeeded"}

        eventually(lambda: check() or None, within=within, what=f"run {run} of {self.name} trains")

    def scale(self, replicas: int) -> None:
        """Kubectl scale."""
        self.kubectl("scale", f"finetunejob/{self.name}", f"--replicas={replicas}")

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """While the context lasts, every version of the object as the API server shows it; the callable returns those so far."""
        with tempfile.NamedTemporaryFile() as shown:
            command = ["kubectl", "-n", self.kubectl.namespace, "get", "finetunejob", self.name, "--watch", "-o", "json"]
            watch = subprocess.Popen(command, stdout=shown, env=self.kubectl.environment)

            def versions() -> list[dict[str, Any]]:
                return _documents(Path(shown.name).read_text(encoding="utf-8"))

            try:
                eventually(versions, within=30, what=f"a watch of {self.name}")
                yield versions
            finally:
                watch.terminate()
                watch.wait(10)

    def story(self) -> str:
        """What a person would look at: describe and the logs of the pods."""
        told = [self.kubectl.run("get", "finetunejob", self.name, "-o", "yaml", check=False).stdout]
        told.append(self.kubectl.run("get", "pods,jobs", "-o", "wide", check=False).stdout)
        for pod in self.pods():
            name = pod["metadata"]["name"]
            told.append(f"--- {name}\n" + self.kubectl.run("logs", name, "--tail=40", check=False).stdout)
        return "\n".join(told)

    @property
    def prefix(self) -> str:
        """Prefix of the job's objects in the bucket, with trailing slash."""
        return str(self.status["outputUri"]).removeprefix(f"s3://{BUCKET}/") + "/"

    def objects(self) -> dict[str, int]:
        """The job's objects, keys relative to its prefix."""
        prefix = self.prefix
        return {key.removeprefix(prefix): size for key, size in self.platform.objects(prefix).items()}

    def read(self, key: str) -> bytes:
        """Bytes of one of the job's objects."""
        return self.platform.read(self.prefix + key)

    def rows(self) -> dict[int, StepRow]:
        """Recorded steps; of several attempts at a step the last one counts."""
        found: dict[int, StepRow] = {}
        keys = [key for key in self.objects() if re.fullmatch(r"metrics/attempt-\d+\.jsonl", key)]
        for key in sorted(keys, key=lambda k: int(re.findall(r"\d+", k)[0])):
            for line in self.read(key).decode().splitlines():
                row = json.loads(line)
                found[row["step"]] = StepRow(
                    row["attempt"], row["step"], row["loss"], row["grad_norm"], row["learning_rate"], row["samples"]
                )
        return found

    def final_digests(self) -> dict[str, str]:
        """sha256 of the final files, by name; without the card, which tells the job's name and attempts."""
        manifest = json.loads(self.read("final/manifest.json"))
        return {file["path"]: file["sha256"] for file in manifest["files"] if file["path"] != "README.md"}


def _documents(text: str) -> list[dict[str, Any]]:
    """JSON documents one after the other; one that is not whole yet is left out."""
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    at = 0
    while text[at:].strip():
        try:
            document, at = decoder.raw_decode(text, text.index("{", at))
        except ValueError:
            break
        found.append(document)
    return found
