"""What a trainer process sets up around itself before anything else: trusted CAs and resource limits. Children inherit both."""

from __future__ import annotations

import resource
from collections.abc import MutableMapping
from pathlib import Path

from finetune_api.contract.env import ENV_CA_BUNDLE

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Python's ssl and httpx; requests (mlflow, wandb); libcurl."""
RAISED = (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_NPROC)
"""Limits that are low by default for the sake of shells: data loaders and NCCL need descriptors, RDMA locked memory."""


def trust_ca_bundle(variables: MutableMapping[str, str]) -> None:
    """Have every library trust the administrator's CA bundle, where it is mounted and the pod does not say otherwise."""
    bundle = variables.get(ENV_CA_BUNDLE)
    if bundle and Path(bundle).is_file():
        for name in CA_VARIABLES:
            variables.setdefault(name, bundle)


def raise_limits() -> None:
    """Raise soft limits to what the container runtime allows; a core dump of a training process would only fill the disk."""
    for kind in RAISED:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
