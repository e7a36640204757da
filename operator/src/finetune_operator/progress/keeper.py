"""Keeps the endpoint's certificate: the leader fills and renews the one Secret it may write, every replica loads what is there, hot.

The CA reaches trainers as a ConfigMap in their namespace, mounted as a file: a rotation publishes the old CA beside the new one.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from finetune_api.constants import CA_CONFIGMAP, FIELD_MANAGER, LABEL_MANAGED_BY, MANAGED_BY
from finetune_operator.cluster.client import CONFIGMAPS, SECRETS, Api
from finetune_operator.cluster.errors import ApiError, ConflictError
from finetune_operator.plan.observed import Manifest
from finetune_operator.progress.certificates import CA_BUNDLE, CA_CERT, TLS_CERT, TLS_KEY, Credentials, renewed

log = logging.getLogger(__name__)
CHECK_SECONDS = 60.0
FIRST_CHECK_SECONDS = 1.0
CA_KEY_IN_CONFIGMAP = "ca.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperSettings:
    """Which Secret, whose certificate."""

    namespace: str
    secret: str
    source: Literal["self", "external"]
    names: Sequence[str]
    """DNS names and addresses of the endpoint, the first one its subject."""


class CertificateKeeper:
    """The server's TLS context and the CA bundle to publish."""

    def __init__(self, api: Api, settings: KeeperSettings, leads: Callable[[], bool]) -> None:
        """``leads()`` tells whether this replica may write the Secret."""
        self._api, self._settings, self._leads = api, settings, leads
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded: tuple[bytes, bytes] | None = None
        self._bundle: bytes | None = None
        self._ready = asyncio.Event()

    @property
    def bundle(self) -> str | None:
        """PEM of the CAs trainers shall trust; None until a certificate is there."""
        return self._bundle.decode() if self._bundle is not None else None

    async def wait_ready(self) -> None:
        """Return when a certificate is loaded."""
        await self._ready.wait()

    async def run(self) -> None:
        """Look after the certificate until cancelled."""
        while True:
            try:
                await self.check()
            except ConflictError:
                log.info("another replica wrote the TLS Secret; reading it again")
            except ApiError as error:
                log.warning("the TLS Secret could not be read or written: %s", error)
            await asyncio.sleep(CHECK_SECONDS if self._ready.is_set() else FIRST_CHECK_SECONDS)

    async def check(self) -> None:
        """Load what the Secret holds; as leader, first make or renew it."""
        secret = await self._api.get(SECRETS, self._settings.namespace, self._settings.secret)
        if secret is None:
            log.error("Secret %s/%s is missing: the chart creates it", self._settings.namespace, self._settings.secret)
            return
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        if self._settings.source == "self" and self._leads():
            data = await self._renew(secret, data)
        if data.get(TLS_CERT) and data.get(TLS_KEY):
            self._load(data[TLS_CERT], data[TLS_KEY], data.get(CA_BUNDLE) or data.get(CA_CERT) or data[TLS_CERT])

    async def _renew(self, secret: Manifest, data: dict[str, bytes]) -> dict[str, bytes]:
        current = Credentials.from_secret(data)
        wanted = renewed(current, self._settings.names, datetime.now(UTC))
        if wanted == current:
            return data
        encoded = {key: base64.b64encode(value).decode() for key, value in wanted.to_secret().items()}
        await self._api.replace(SECRETS, self._settings.namespace, {**secret, "data": encoded})
        log.info("made a new certificate for the progress endpoint")
        return wanted.to_secret()

    def _load(self, certificate: bytes, key: bytes, bundle: bytes) -> None:
        self._bundle = bundle
        if self._loaded == (certificate, key):
            return
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / TLS_CERT, Path(folder) / TLS_KEY
            for file, content in zip(files, (certificate, key), strict=True):
                file.touch(mode=0o600)
                file.write_bytes(content)
            self.context.load_cert_chain(*files)
        self._loaded = certificate, key
        self._ready.set()

    async def publish(self, namespace: str) -> None:
        """See to it that ConfigMap ``finetune-ca`` in a job's namespace holds the current bundle."""
        bundle = self.bundle
        if bundle is None:
            return
        data: dict[str, Any] = {CA_KEY_IN_CONFIGMAP: bundle}
        found = await self._api.get(CONFIGMAPS, namespace, CA_CONFIGMAP)
        if found is None:
            labels = {LABEL_MANAGED_BY: MANAGED_BY}
            metadata = {"name": CA_CONFIGMAP, "namespace": namespace, "labels": labels}
            await self._api.create(CONFIGMAPS, namespace, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        elif (found.get("data") or {}).get(CA_KEY_IN_CONFIGMAP) != bundle:
            patch = {"metadata": {"uid": found["metadata"]["uid"]}, "data": data}
            await self._api.merge_patch(CONFIGMAPS, namespace, CA_CONFIGMAP, patch, manager=FIELD_MANAGER)
