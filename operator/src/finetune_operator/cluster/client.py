"""The API server over the official asyncio client, with raw JSON: its typed models cost a second of event loop per thousand Jobs.

404 is an answer (None), not an error. Nothing here upserts: what is created is created, what is changed or deleted carries the uid it was seen with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from finetune_api.constants import CLUSTER_PRESET_PLURAL, GROUP, PLURAL, PRESET_PLURAL, VERSION
from finetune_operator.cluster.errors import UnavailableError, error_of
from finetune_operator.plan.decision import Propagation
from finetune_operator.plan.observed import Manifest

REQUEST_TIMEOUT_SECONDS = 20.0
MERGE_PATCH = "application/merge-patch+json"


class Resource(NamedTuple):
    """A kind of object at the API server."""

    group_version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of an object or of the collection."""
        root = "/api" if "/" not in self.group_version else "/apis"
        parts = [root, self.group_version, *(("namespaces", namespace) if namespace else ()), self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


FINETUNEJOBS = Resource(f"{GROUP}/{VERSION}", PLURAL)
PRESETS = Resource(f"{GROUP}/{VERSION}", PRESET_PLURAL)
CLUSTER_PRESETS = Resource(f"{GROUP}/{VERSION}", CLUSTER_PRESET_PLURAL)
JOBS = Resource("batch/v1", "jobs")
PODS = Resource("v1", "pods")
SERVICES = Resource("v1", "services")
CONFIGMAPS = Resource("v1", "configmaps")
SECRETS = Resource("v1", "secrets")
NAMESPACES = Resource("v1", "namespaces")
EVENTS = Resource("v1", "events")
LEASES = Resource("coordination.k8s.io/v1", "leases")
TOKENREVIEWS = Resource("authentication.k8s.io/v1", "tokenreviews")


class Api(Protocol):
    """What this package needs of an API server; the tests' in-memory server has it too."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """An object, None if it is not there."""

    async def list(self, resource: Resource, namespace: str | None, selector: str = "") -> list[Manifest]:
        """Objects by label selector; all namespaces when ``namespace`` is None."""

    async def create(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """POST; :class:`ConflictError` if the name is taken."""

    async def replace(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest | None:
        """PUT with the resourceVersion in the manifest; None if the object is gone."""

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        manager: str,
        subresource: str | None = None,
    ) -> Manifest | None:
        """JSON merge patch; with ``metadata.uid`` in it, :class:`ConflictError` for another object. None if there is none."""

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: Propagation = "Background") -> bool:
        """Delete the object only if it has this uid; False if it is not there, :class:`ConflictError` if it is another one."""


class KubeApi:
    """:class:`Api` over a configured client."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """An object, None if it is not there."""
        return await self.request("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str | None, selector: str = "") -> list[Manifest]:
        """Objects by label selector; all namespaces when ``namespace`` is None."""
        query = {"labelSelector": selector} if selector else {}
        found = await self.request("GET", resource.path(namespace), query=query)
        return list(found["items"]) if found is not None else []

    async def create(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """POST; :class:`ConflictError` if the name is taken."""
        created = await self.request("POST", resource.path(namespace), body=manifest)
        if created is None:
            raise error_of(404, "NotFound", f"{resource.path(namespace)}: the namespace or the kind does not exist")
        return created

    async def replace(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest | None:
        """PUT with the resourceVersion in the manifest; None if the object is gone."""
        return await self.request("PUT", resource.path(namespace, manifest["metadata"]["name"]), body=manifest)

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        manager: str,
        subresource: str | None = None,
    ) -> Manifest | None:
        """JSON merge patch; with ``metadata.uid`` in it, :class:`ConflictError` for another object. None if there is none."""
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, query={"fieldManager": manager}, body=patch, content_type=MERGE_PATCH)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: Propagation = "Background") -> bool:
        """Delete the object only if it has this uid; False if it is not there, :class:`ConflictError` if it is another one."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation, "preconditions": {"uid": uid}}
        return await self.request("DELETE", resource.path(namespace, name), body=options) is not None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Manifest | None:
        """One request; the answer as JSON, None for 404. Raises :class:`finetune_operator.cluster.errors.ApiError`."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._client.call_api(method, url, headers, body=body, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            text: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise UnavailableError(error.status or 0, "NoAnswer", str(error.reason)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(0, type(error).__name__, f"{method} {path}: {error}") from error
        if answer.status == 404:
            return None
        if not 200 <= answer.status < 300:
            raise error_of(answer.status, *_explanation(text))
        document: Manifest = json.loads(text)
        return document


def _explanation(text: bytes) -> tuple[str, str]:
    """Reason and message of a metav1.Status; the raw text where the answer is something else."""
    try:
        status = json.loads(text)
        return str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        return "", text.decode(errors="replace")[:500]
