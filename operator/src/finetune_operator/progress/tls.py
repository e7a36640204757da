"""The endpoint's certificate, alive: the leader keeps the one Secret, every replica serves what is in it.

The CA reaches trainers as a ConfigMap in their namespace, mounted as a file.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from finetune_api.constants import CA_CONFIGMAP, LABEL_MANAGED_BY, MANAGED_BY
from finetune_api.contract.env import PROGRESS_CA_PATH
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import AlreadyExistsError, ApiError
from finetune_operator.cluster.resources import CONFIG_MAPS, SECRETS
from finetune_operator.progress.certificates import TlsBundle, renewed

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
FIRST_LOOK_SECONDS = 1.0
FRESH_SECONDS = 30.0
"""What was seen of a namespace counts for so long: in a wave of jobs it is asked about once, not for each."""
CA_KEY = PROGRESS_CA_PATH.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Which Secret, whose certificate."""

    namespace: str
    secret: str
    names: tuple[str, ...]
    """DNS names and addresses of the endpoint, the first one its subject."""
    directory: Path
    """For the files the ssl module reads."""


class TlsKeeper:
    """Reads the Secret again and again; as the leader fills and renews it first."""

    def __init__(self, client: Client, settings: TlsSettings, *, may_write: Callable[[], bool], now: Callable[[], datetime]) -> None:
        self._client = client
        self._settings = settings
        self._may_write = may_write
        self._now = now
        self._bundle: TlsBundle | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """Of the server; new connections get the newest certificate."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    @property
    def loaded(self) -> bool:
        """Whether there is a certificate to serve."""
        return self._bundle is not None

    @property
    def ca(self) -> str | None:
        """CA certificates for trainers (PEM); None while there are none."""
        return (self._bundle.ca or self._bundle.certificate) if self._bundle is not None else None

    async def changes(self) -> AsyncIterator[None]:
        """Keep the certificate until cancelled; yields whenever the CA is another one."""
        while True:
            before = self.ca
            try:
                await self.look()
            except ApiError as error:
                log.warning("TLS Secret not read or written", extra={"secret": self._settings.secret, "error": str(error)})
            if self.ca is not None and self.ca != before:
                yield
            await asyncio.sleep(LOOK_SECONDS if self.loaded else FIRST_LOOK_SECONDS)

    async def look(self) -> None:
        """Read the Secret, renew what is due if this replica may, and serve what is there."""
        manifest = await self._client.get(SECRETS, self._settings.namespace, self._settings.secret)
        if manifest is None:
            log.error(
                "the TLS Secret is missing; the chart creates it", extra={"secret": f"{self._settings.namespace}/{self._settings.secret}"}
            )
            return
        data = {key: base64.b64decode(value).decode() for key, value in (manifest.get("data") or {}).items()}
        bundle = TlsBundle.from_secret(data)
        if self._may_write():
            wanted = renewed(bundle, self._settings.names, self._now())
            if wanted != bundle:
                await self._store(manifest["metadata"]["uid"], manifest["metadata"]["resourceVersion"], wanted)
                bundle = wanted
        if bundle is not None and bundle != self._bundle:
            self._serve(bundle)

    async def _store(self, uid: str, resource_version: str, bundle: TlsBundle) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in bundle.to_secret().items()}
        patch = {"metadata": {"uid": uid, "resourceVersion": resource_version}, "data": data}
        await self._client.patch(SECRETS, self._settings.namespace, self._settings.secret, patch)
        log.info("TLS certificate issued", extra={"names": list(self._settings.names)})

    def _serve(self, bundle: TlsBundle) -> None:
        """Load the certificate; the ssl module reads files only."""
        certificate, key = self._settings.directory / "tls.crt", self._settings.directory / "tls.key"
        certificate.write_text(bundle.certificate)
        key.touch(mode=0o600)
        key.write_text(bundle.key)
        self.context.load_cert_chain(certificate, key)
        self._bundle = bundle


class CaPublisher:
    """Puts the CA into ConfigMap ``finetune-ca`` of the namespaces where jobs are."""

    def __init__(self, client: Client, ca: Callable[[], str | None], *, clock: Callable[[], float]) -> None:
        self._client = client
        self._ca = ca
        self._clock = clock
        self._looked: dict[str, float] = {}
        """Namespaces that have it, and when that was seen."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where it was published."""
        return tuple(self._looked)

    async def publish(self, namespace: str) -> None:
        """See to it that the namespace has the CA. Without one (not made yet) pods start and find it later: the mount is optional.

        Looks again now and then: a namespace may have been deleted and made again under the same name.
        """
        if self._clock() - self._looked.get(namespace, -math.inf) > FRESH_SECONDS:
            await self._bring(namespace)

    async def keep(self, namespace: str) -> None:
        """The same for a namespace with a run, whoever made that: what fails is tried again at the next look."""
        try:
            await self.publish(namespace)
        except ApiError as error:
            log.warning("CA not published", extra={"namespace": namespace, "error": str(error)})

    async def publish_again(self) -> None:
        """Bring a new CA to every namespace that has the old one."""
        self._looked = dict.fromkeys(self._looked, -math.inf)
        for namespace in self.namespaces:
            await self.keep(namespace)

    async def _bring(self, namespace: str) -> None:
        ca = self._ca()
        if ca is None:
            return
        if namespace not in self._looked or not await self._update(namespace, ca):
            await self._create(namespace, ca)
        self._looked[namespace] = self._clock()

    async def _create(self, namespace: str, ca: str) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_CONFIGMAP, "namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
            "data": {CA_KEY: ca},
        }
        try:
            await self._client.create(CONFIG_MAPS, namespace, manifest)
        except AlreadyExistsError:
            await self._update(namespace, ca)

    async def _update(self, namespace: str, ca: str) -> bool:
        """Bring an existing ConfigMap up to date; an administrator's own is left alone. False: there is none."""
        found = await self._client.get(CONFIG_MAPS, namespace, CA_CONFIGMAP)
        if found is None:
            return False
        is_ours = (found["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGED_BY
        if is_ours and (found.get("data") or {}).get(CA_KEY) != ca:
            patch = {"metadata": {"uid": found["metadata"]["uid"]}, "data": {CA_KEY: ca}}
            await self._client.patch(CONFIG_MAPS, namespace, CA_CONFIGMAP, patch)
        return True
