#!/usr/bin/env python3
"""Make the tiny model and put it where the test job finds it: ``upload_model.py DATA_FILE BUCKET PREFIX``.

Runs in the trainer image; the store's credentials are the files of the Secret that jobs use, in ``STORE_SECRET_DIR``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import tiny_model
from minio import Minio


def connect(credentials: Path) -> Minio:
    """Client of the store that the Secret describes; AWS S3 if it names no endpoint."""

    def key(name: str, default: str = "") -> str:
        file = credentials / name
        return file.read_text(encoding="utf-8").strip() if file.exists() else default

    if (credentials / "ca.crt").exists():
        os.environ["SSL_CERT_FILE"] = str(credentials / "ca.crt")
    endpoint = urlsplit(key("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"))
    return Minio(
        endpoint.netloc,
        access_key=key("AWS_ACCESS_KEY_ID"),
        secret_key=key("AWS_SECRET_ACCESS_KEY"),
        session_token=key("AWS_SESSION_TOKEN") or None,
        secure=endpoint.scheme == "https",
        region=key("AWS_REGION") or None,
    )


def main(data: str, bucket: str, prefix: str) -> int:
    """Upload each file of the model."""
    store = connect(Path(os.environ["STORE_SECRET_DIR"]))
    with tempfile.TemporaryDirectory() as folder:
        tiny_model.write_model(Path(folder), data=Path(data), params="test")
        for file in sorted(Path(folder).iterdir()):
            store.fput_object(bucket, f"{prefix}/{file.name}", str(file))
            sys.stdout.write(f"s3://{bucket}/{prefix}/{file.name}: {file.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
