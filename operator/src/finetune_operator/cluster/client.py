"""The API server behind a few verbs on JSON.

The official asyncio client does authentication and transport; its models stay unused (decoding a long list of them stalls the loop).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration

from finetune_api.constants import FIELD_MANAGER
from finetune_operator.cluster.errors import AlreadyExistsError, ApiError, NotFoundError, UnreachableError, error_of
from finetune_operator.cluster.resources import Resource
from finetune_operator.plan.observed import Manifest

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
REQUEST_SECONDS = 30.0
ACCEPTED = f"{JSON}, application/jwk-set+json"
"""The second for the API server's public keys alone: it answers 406 to a request that takes plain JSON only."""


class Answer(NamedTuple):
    """A response of the API server."""

    status: int
    headers: Mapping[str, str]
    body: Manifest


class Transport(Protocol):
    """Sends one request; the only thing a test has to replace."""

    async def request(self, method: str, path: str, *, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
        """Send; raises :class:`UnreachableError` when there is no answer."""
        ...


class KubernetesTransport:
    """The official client, used for credentials (in-cluster token rotation, kubeconfig), TLS and connections."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> KubernetesTransport:
        """Use the pod's service account, else the kubeconfig ($KUBECONFIG)."""
        configuration = Configuration()
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        else:
            await kubernetes_config.load_kube_config(client_configuration=configuration)
        # Else every request asks the environment and ~/.netrc again, in threads: a quarter of an operator's processor time.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or proxy_of(configuration.host)
        return cls(ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def request(self, method: str, path: str, *, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
        """Send one request."""
        headers = {"Accept": ACCEPTED, "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._client.configuration.host + path
        if query:
            url += "?" + "&".join(f"{key}={_quoted(value)}" for key, value in query.items())
        try:
            response = await self._client.rest_client.request(method, url, headers=headers, body=body, _request_timeout=REQUEST_SECONDS)
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(0, type(error).__name__, str(error) or "no answer in time") from error
        return Answer(response.status, response.headers, _decoded(data))


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for the API server, if any."""
    address = urlsplit(url)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


def _quoted(value: str) -> str:
    return value.translate({ord(c): f"%{ord(c):02X}" for c in "%&+=#? ,/!()"})


def _decoded(data: bytes) -> Manifest:
    """The body as JSON; what is no JSON object (a proxy's error page) as a message."""
    try:
        body = json.loads(data) if data else {}
    except ValueError:
        body = {"message": data[:200].decode(errors="replace")}
    return body if isinstance(body, dict) else {"message": str(body)[:200]}


METHODS: Mapping[str, str] = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "update": "PUT", "delete": "DELETE"}
"""Verb of a rule of RBAC -> method of HTTP."""
Observer = Callable[[str, str, int], None]
"""Told of each request as a rule of RBAC names it: verb, resource (``finetunejobs/status``), HTTP status."""


def _ignore(_verb: str, _resource: str, _status: int) -> None:
    """Observe nothing."""


class Client:
    """Verbs on resources. ``fence`` is called before every write and raises when this process may not write."""

    def __init__(self, transport: Transport, *, fence: Callable[[], None] | None = None, observer: Observer = _ignore) -> None:
        self._transport = transport
        self._fence = fence
        self._observer = observer

    def fenced(self, fence: Callable[[], None]) -> Client:
        """The same client with a fence before its writes."""
        return Client(self._transport, fence=fence, observer=self._observer)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """One object; None if there is none."""
        try:
            return await self._send("get", resource, resource.path(namespace, name))
        except NotFoundError:
            return None

    async def raw(self, path: str) -> Manifest:
        """GET of any path, for example discovery or ``/openid/v1/jwks``."""
        answer = await self._transport.request("GET", path, query={}, body=None, content_type=JSON)
        self._observer("get", path.strip("/").partition("/")[0], answer.status)
        if answer.status >= 300:
            raise error_of(answer.status, answer.body, answer.headers)
        return answer.body

    async def list(self, resource: Resource, namespace: str | None, label_selector: str = "", field_selector: str = "") -> list[Manifest]:
        """Objects of a namespace (None: of all) with these labels and fields."""
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {name: selector for name, selector in selectors.items() if selector}
        body = await self._send("list", resource, resource.path(namespace), query=query)
        return body.get("items") or []

    async def create(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """POST; raises :class:`AlreadyExistsError` when the name is taken."""
        return await self._send("create", resource, resource.path(namespace), body=manifest, query={"fieldManager": FIELD_MANAGER})

    async def create_once(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest | None:
        """POST; the object that is there already is returned instead (None: created now)."""
        try:
            await self.create(resource, namespace, manifest)
        except AlreadyExistsError:
            found = await self.get(resource, namespace, manifest["metadata"]["name"])
            if found is None:
                raise
            return found
        return None

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Manifest) -> Manifest:
        """JSON merge patch; ``metadata.uid`` and ``metadata.resourceVersion`` in it are preconditions."""
        return await self._send("patch", resource, resource.path(namespace, name), body=patch, query={"fieldManager": FIELD_MANAGER})

    async def patch_status(self, resource: Resource, namespace: str, name: str, patch: Manifest, manager: str = FIELD_MANAGER) -> Manifest:
        """The same on the status subresource, under the name of a field manager."""
        path = resource.path(namespace, name, "status")
        return await self._send("patch", resource, path, body=patch, query={"fieldManager": manager}, subresource="/status")

    async def replace(self, resource: Resource, namespace: str, name: str, manifest: Manifest) -> Manifest:
        """PUT; the manifest's resourceVersion is a precondition."""
        return await self._send("update", resource, resource.path(namespace, name), body=manifest)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, propagation: str = "Background") -> bool:
        """Delete exactly this object; False if it is gone. Raises :class:`ConflictError` when another one has its name."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}, "propagationPolicy": propagation}
        try:
            await self._send("delete", resource, resource.path(namespace, name), body=options)
        except NotFoundError:
            return False
        return True

    async def _send(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        subresource: str = "",
    ) -> Manifest:
        method, asked = METHODS[verb], resource.plural + subresource
        if method != "GET" and self._fence is not None:
            self._fence()
        content_type = MERGE_PATCH if method == "PATCH" else JSON
        try:
            answer = await self._transport.request(method, path, query=query or {}, body=body, content_type=content_type)
        except ApiError as error:
            self._observer(verb, asked, error.status)
            raise
        self._observer(verb, asked, answer.status)
        if answer.status >= 300:
            raise error_of(answer.status, answer.body, answer.headers)
        return answer.body
