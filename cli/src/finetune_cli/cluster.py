"""The API server: reading, following and patching FineTuneJobs, and the little else the commands need."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import stamina
import urllib3
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from finetune_api.constants import (
    BASE_MODEL_PLURAL,
    BUDGET_NAME,
    BUDGET_PLURAL,
    DATASET_PLURAL,
    GPU_TYPE_PLURAL,
    GROUP,
    LABEL_JOB,
    PLURAL,
    VERSION,
)
from finetune_cli.access import Access
from finetune_cli.doctor import Reply
from finetune_cli.errors import CliError, JobGoneError, NotAllowedError
from finetune_cli.job import Job, JobRef, where_it_is

OUTAGE_SECONDS = 60
"""How long the API server may be away before a command gives up."""
TICK_SECONDS = 10
"""A followed job is read anew at least this often, also when nothing changes."""


class Cluster:
    """The API server, as the commands use it. Errors come out as sentences."""

    def __init__(self, access: Access, api: client.ApiClient) -> None:
        self.access = access
        self.api = api
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def job(self, ref: JobRef) -> Job:
        """Read a job once.

        Raises:
            JobGoneError: there is none of this name.
        """
        return Job.of(self._job_document(ref))

    def follow(self, ref: JobRef, *, tick_seconds: int = TICK_SECONDS) -> Iterator[Job]:
        """Yield the job now, at every change, and at least every ``tick_seconds``; without an end.

        Raises:
            JobGoneError: it does not exist, or was deleted.
            CliError: the API server was away for longer than :data:`OUTAGE_SECONDS`.
        """
        while True:
            document = self._job_document(ref)
            yield Job.of(document)
            try:
                yield from self._changes(ref, document["metadata"]["resourceVersion"], tick_seconds)
            except urllib3.exceptions.HTTPError:
                continue  # the next read decides whether the server is back
            except ApiException as error:
                if not _is_passing(error) and error.status != 410:
                    raise as_sentence(error, f"watching {ref}") from error

    def patch(self, ref: JobRef, patch: Mapping[str, Any]) -> Job:
        """Change a job by a merge patch."""
        try:
            changed: Any = self._custom.patch_namespaced_custom_object(GROUP, VERSION, ref.namespace, PLURAL, ref.name, dict(patch))
        except ApiException as error:
            raise as_sentence(error, f"changing {ref}") from error
        return Job.of(changed)

    def create(self, manifest: Mapping[str, Any]) -> Job:
        """Create a job; one of the same name that exists already is returned as it is."""
        ref = JobRef(manifest["metadata"]["name"], manifest["metadata"]["namespace"])
        try:
            created: Any = self._custom.create_namespaced_custom_object(GROUP, VERSION, ref.namespace, PLURAL, dict(manifest))
        except ApiException as error:
            if error.status == 409:
                return self.job(ref)
            raise as_sentence(error, f"creating {ref}") from error
        return Job.of(created)

    def base_models(self) -> list[dict[str, Any]]:
        """The catalogue."""
        listed = self.call(
            lambda: self._custom.list_cluster_custom_object(GROUP, VERSION, BASE_MODEL_PLURAL), "listing the BaseModels of the cluster"
        )
        return list(listed["items"])

    def gpu_types(self) -> list[dict[str, Any]]:
        """The catalogue of GPUs."""
        listed = self.call(
            lambda: self._custom.list_cluster_custom_object(GROUP, VERSION, GPU_TYPE_PLURAL), "listing the GpuTypes of the cluster"
        )
        return list(listed["items"])

    def nodes_and_pods(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        """All nodes and pods of the cluster; None when this user may not list them."""
        try:
            nodes = self.call(self._core.list_node, "listing the nodes")
            pods = self.call(self._core.list_pod_for_all_namespaces, "listing the pods of the cluster")
        except NotAllowedError:
            return None
        return [self._plain(each) for each in nodes.items], [self._plain(each) for each in pods.items]

    def _plain(self, found: object) -> dict[str, Any]:
        """An object of the client as JSON has it."""
        plain: dict[str, Any] = self.api.sanitize_for_serialization(found)
        return plain

    def datasets(self, namespace: str) -> list[dict[str, Any]]:
        """The Datasets of a namespace."""
        listed = self.call(
            lambda: self._custom.list_namespaced_custom_object(GROUP, VERSION, namespace, DATASET_PLURAL),
            f"listing the Datasets of namespace {namespace}",
        )
        return list(listed["items"])

    def put_dataset(self, manifest: Mapping[str, Any]) -> bool:
        """Create a Dataset, or merge its spec into that of the one there is. True: created."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        what = f"dataset/{name} in namespace {namespace}"
        try:
            self._custom.create_namespaced_custom_object(GROUP, VERSION, namespace, DATASET_PLURAL, dict(manifest))
        except ApiException as error:
            if error.status != 409:
                raise as_sentence(error, f"creating {what}") from error
        else:
            return True
        try:
            self._custom.patch_namespaced_custom_object(GROUP, VERSION, namespace, DATASET_PLURAL, name, {"spec": manifest["spec"]})
        except ApiException as error:
            raise as_sentence(error, f"changing {what}") from error
        return False

    def budget(self, namespace: str) -> dict[str, Any] | None:
        """The Budget of a namespace; None: there is none."""
        what = f"reading the Budget of namespace {namespace}"
        try:
            found: dict[str, Any] = self.call(
                lambda: self._custom.get_namespaced_custom_object(GROUP, VERSION, namespace, BUDGET_PLURAL, BUDGET_NAME), what
            )
        except JobGoneError:
            return None
        return found

    def top_up(self, namespace: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        """Change the Budget of a namespace by a JSON patch; return it as it is then."""
        what = f"topping up the Budget of namespace {namespace}"
        try:
            changed: Any = self._custom.patch_namespaced_custom_object(
                GROUP, VERSION, namespace, BUDGET_PLURAL, BUDGET_NAME, patch, _content_type="application/json-patch+json"
            )
        except ApiException as error:
            raise as_sentence(error, what) from error
        return dict(changed)

    def deployments(self, selector: str) -> list[dict[str, Any]]:
        """Deployments of the cluster with some labels; none to whoever may not list them."""
        reply = self.ask("/apis/apps/v1/deployments", labelSelector=selector)
        return list(reply.body.get("items") or ()) if reply.code == 200 else []

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        """Decoded values of a Secret."""
        document = self.call(lambda: self._core.read_namespaced_secret(name, namespace), f"reading secret/{name} in namespace {namespace}")
        return {key: base64.b64decode(value).decode() for key, value in (document.data or {}).items()}

    def ask(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Reply:
        """GET a path, or POST ``body`` to it. A refusal (4xx) is a reply: what it means, the caller knows."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}

        def once() -> Reply:
            method = "GET" if body is None else "POST"
            request = self.api.param_serialize(
                method, path, query_params=list(query.items()), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self.api.call_api(*request)
            data = response.read()
            if response.status in {401, 429} or response.status >= 500:
                raise ApiException(http_resp=response)
            return Reply(response.status, json.loads(data))

        reply: Reply = self.call(once, f"reading {path}")
        return reply

    def pods(self, ref: JobRef) -> list[str]:
        """Names of the job's pods that exist."""
        selector = f"{LABEL_JOB}={ref.name}"
        pods = self.call(lambda: self._core.list_namespaced_pod(ref.namespace, label_selector=selector), f"listing the pods of {ref}")
        return [pod.metadata.name for pod in pods.items]

    def _changes(self, ref: JobRef, version: str, tick_seconds: int) -> Iterator[Job]:
        """Changes after a version, for at most ``tick_seconds``."""
        events = watch.Watch().stream(
            self._custom.list_namespaced_custom_object,
            GROUP,
            VERSION,
            ref.namespace,
            PLURAL,
            field_selector=f"metadata.name={ref.name}",
            resource_version=version,
            timeout_seconds=tick_seconds,
            deserialize=False,
        )
        for event in events:
            if event["type"] == "DELETED":
                raise JobGoneError(f"{ref} was deleted")
            yield Job.of(event["object"])

    def _job_document(self, ref: JobRef) -> Mapping[str, Any]:
        document: Mapping[str, Any] = self.call(
            lambda: self._custom.get_namespaced_custom_object(GROUP, VERSION, ref.namespace, PLURAL, ref.name), f"reading {ref}"
        )
        return document

    @staticmethod
    def call(read: Callable[[], Any], what: str) -> Any:
        """Do a read, again while the server is away, and turn what goes wrong into a sentence."""
        try:
            for attempt in stamina.retry_context(on=_is_passing, attempts=None, timeout=OUTAGE_SECONDS, wait_initial=0.2, wait_max=5):
                with attempt:
                    return read()
        except ApiException as error:
            raise as_sentence(error, what) from error
        except urllib3.exceptions.HTTPError as error:
            raise CliError(f"{what}: the API server does not answer ({error})") from error
        raise AssertionError("a retried call either returns or raises")


def bounded(jobs: Iterator[Job], timeout_seconds: float, waiting_for: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Job]:
    """Pass observations on for a limited time.

    Raises:
        CliError: the time is up; the message says what was waited for, and where the job is.
    """
    deadline = clock() + timeout_seconds
    for job in jobs:
        yield job
        if clock() > deadline:
            raise CliError(f"{job.ref}: no {waiting_for} within {timeout_seconds:.0f} s; {where_it_is(job)}")


def _is_passing(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, ApiException):
        return error.status in {429, 500, 502, 503, 504}
    return isinstance(error, urllib3.exceptions.HTTPError)


def as_sentence(error: ApiException, what: str) -> CliError:
    """What the API server refused, for people; ``what`` was being done."""
    if error.status == 404:
        return JobGoneError(f"{what}: not found")
    if error.status == 403:
        return NotAllowedError(
            f"{what}: not allowed", advice="Ask for a role that allows it; the chart ships one for users of FineTuneJobs."
        )
    return CliError(f"{what}: the API server refused with {error.status} {error.reason}: {_message_in(error.body)}")


def _message_in(body: object) -> str:
    """The sentence inside a Status object, or the body as it is."""
    text = body.decode() if isinstance(body, bytes) else str(body or "")
    try:
        document = json.loads(text)
    except ValueError:
        return text.strip()
    return str(document.get("message", text)) if isinstance(document, dict) else text
