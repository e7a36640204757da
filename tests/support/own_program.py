"""The program of a TrainingMethod under test: counts steps, reports by Kubeflow's protocol, saves on SIGTERM, goes on where it was.

It is handed to ``python -c`` in the trainer's image, which has a client for the store; nothing of this project is imported.
"""

from __future__ import annotations

import io
import json
import os
import signal
import ssl
import sys
import urllib.request
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from minio import Minio
from minio.error import S3Error

ENVIRONMENT = os.environ
TOTAL = int(ENVIRONMENT.get("MAX_STEPS", "10"))
SECONDS_PER_STEP = float(ENVIRONMENT.get("SECONDS_PER_STEP", "0"))
stop = Event()


def store() -> tuple[Minio, str, str]:
    """Client, bucket and prefix of what is this job's alone."""
    endpoint, output = urlsplit(ENVIRONMENT["AWS_ENDPOINT_URL"]), urlsplit(ENVIRONMENT["FINETUNE_OUTPUT_URI"])
    keys = ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    client = Minio(endpoint.netloc, *keys, secure=endpoint.scheme == "https", region=ENVIRONMENT.get("AWS_REGION", "us-east-1"))
    return client, output.netloc, output.path.strip("/")


def put(name: str, document: object) -> None:
    """Store a document."""
    client, bucket, prefix = store()
    data = json.dumps(document).encode()
    client.put_object(bucket, f"{prefix}/{name}", io.BytesIO(data), len(data))


def saved_step() -> int:
    """Where an earlier run stopped."""
    client, bucket, prefix = store()
    try:
        response = client.get_object(bucket, f"{prefix}/checkpoints/state.json")
    except S3Error as error:
        if error.code == "NoSuchKey":
            return 0
        raise
    with response:
        return int(json.loads(response.read())["step"])


def post(step: int) -> None:
    """Report as transformers' callback does: training does not stop for it."""
    metrics = {"current_step": step, "total_steps": TOTAL, "loss": 1 / (1 + step), "own_number": step * 2}
    told = [{"name": name, "value": str(value)} for name, value in metrics.items()]
    status = {"lastUpdatedTime": "2026-01-01T00:00:00Z", "progressPercentage": 100 * step // TOTAL, "metrics": told}
    token = Path(ENVIRONMENT["KUBEFLOW_TRAINER_SERVER_TOKEN"]).read_text(encoding="utf-8").strip()
    request = urllib.request.Request(  # noqa: S310 - the operator's address
        ENVIRONMENT["KUBEFLOW_TRAINER_SERVER_URL"],
        json.dumps({"trainerStatus": status}).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    trust = ssl.create_default_context(cafile=ENVIRONMENT["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
    try:
        with urllib.request.urlopen(request, timeout=5, context=trust):  # noqa: S310 - likewise
            pass
    except OSError as error:
        sys.stderr.write(f"not reported: {error}\n")


def main() -> int:
    """Train."""
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    first = step = saved_step()
    rows = len(Path(ENVIRONMENT["DATASET_PATH"]).read_text(encoding="utf-8").splitlines())
    while step < TOTAL:
        stop.wait(SECONDS_PER_STEP)
        step += 1
        if stop.is_set():
            put("checkpoints/state.json", {"step": step})
            return 75
        post(step)
    told = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("AWS_")}
    job = json.loads(Path(ENVIRONMENT["FINETUNE_JOB_FILE"]).read_text(encoding="utf-8"))
    put("final/result.json", {"first": first, "last": step, "rows": rows, "environment": told, "job": job})
    return 0


if __name__ == "__main__":
    sys.exit(main())
