"""Short Jobs in the cluster: started once, followed through their pods, judged by what the last one left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError

from finetune_api.constants import BASE_MODEL_PLURAL, GROUP, LABEL_COMPONENT, VERSION
from finetune_api.contract.env import TRAINER_CONTAINER
from finetune_api.contract.failures import REACTIONS
from finetune_api.contract.termination import TerminationMessage
from finetune_cli.cluster import as_sentence
from finetune_cli.errors import CliError
from finetune_cli.installation import OPERATOR
from finetune_cli.short_jobs import Manifest, ShortJob, Surroundings, read_surroundings

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster

POLL_SECONDS: Final = 1.0
ENDED: Final = frozenset({"Complete", "Failed"})
Tell = Callable[[str], None]


class JobRunner:
    """The API server, as far as short Jobs need it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._apps = client.AppsV1Api(cluster.api)
        self._batch = client.BatchV1Api(cluster.api)
        self._core = client.CoreV1Api(cluster.api)
        self._custom = client.CustomObjectsApi(cluster.api)
        self._told: dict[str, int] = {}
        """Pod -> lines of its log that were told."""

    def surroundings(self, namespace: str) -> Surroundings:
        """What pods need here, as the operator's Deployment says.

        Raises:
            CliError: there is no operator, or its Deployment may not be read.
        """
        try:
            listed = self._cluster.call(
                lambda: self._apps.list_deployment_for_all_namespaces(label_selector=OPERATOR), "looking for the operator's Deployment"
            )
        except CliError as error:
            raise CliError(
                str(error), advice="Name the trainer image with --image; its proxy and CA settings then stay unknown."
            ) from error
        return read_surroundings(self._cluster.api.sanitize_for_serialization(listed)["items"], namespace)

    def start(self, objects: ShortJob) -> bool:
        """Create the Job and its ConfigMap. False: it is under way. One that has ended is made anew."""
        job, created = self._create_job(objects.job)
        self._create_config_map(objects.config_map, job)
        return created

    def follow(self, name: str, namespace: str, tell: Tell) -> dict[str, object]:
        """Tell what the pods say until the Job has ended; returns its result.

        Raises:
            CliError: it failed; the message is the last pod's, the advice that of its class.
        """
        message = None
        while True:
            job = self._job(name, namespace)
            if job is None:
                raise CliError(f"job/{name} in namespace {namespace} was deleted")
            ended = ending(job)
            pods = self._pods(name, namespace)
            for pod in pods:
                for line in self._lines(pod):
                    tell(line)
            message = self._left(pods[-1]) if pods else message
            if ended is not None:
                return judge(name, ended, message)
            time.sleep(POLL_SECONDS)

    def waits_for(self, name: str, namespace: str) -> tuple[str, str]:
        """The pod of a Job that is to go on, and why it does not run yet (empty: it runs).

        Raises:
            CliError: the Job has ended, or is gone; the message is its pod's.
        """
        job = self._job(name, namespace)
        if job is None:
            raise CliError(f"job/{name} in namespace {namespace} was deleted")
        pods = self._pods(name, namespace)
        ended = ending(job)
        if ended is not None:
            if pods and self._ended(pods[-1], "OOMKilled"):
                raise CliError(
                    f"job/{name} in namespace {namespace} ran out of memory", advice="Its node has too little for the model; --gpu?"
                )
            judge(name, ended, self._left(pods[-1]) if pods else None)
            raise CliError(f"job/{name} in namespace {namespace} has ended", advice="The same command starts it again.")
        if not pods:
            return "", "its pod is not there yet"
        pod = pods[-1]
        return pod.metadata.name, "" if pod.status.phase == "Running" else waiting_reason(pod)

    def remove_owned(self, component: str, owner_uid: str, namespace: str) -> list[str]:
        """Remove the Jobs of a component that belong to an object, with their pods; returns their names."""
        listed = self._cluster.call(
            lambda: self._batch.list_namespaced_job(namespace, label_selector=f"{LABEL_COMPONENT}={component}"),
            f"listing the Jobs of namespace {namespace}",
        )
        owned = [job for job in listed.items if any(owner.uid == owner_uid for owner in job.metadata.owner_references or ())]
        for job in owned:
            self._remove(job)
        return [job.metadata.name for job in owned]

    def register(self, manifest: Manifest, *, dry_run: bool = False) -> bool:
        """Create a BaseModel. False: it is there, with the same address.

        Raises:
            CliError: the one of this name has another address, or this user may not create any.
        """
        name, uri = manifest["metadata"]["name"], manifest["spec"]["uri"]
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        try:
            self._custom.create_cluster_custom_object(GROUP, VERSION, BASE_MODEL_PLURAL, manifest, **options)
        except ApiException as error:
            if error.status != 409:
                raise as_sentence(error, f"creating basemodel/{name}") from error
        else:
            return True
        found = self._cluster.call(
            lambda: self._custom.get_cluster_custom_object(GROUP, VERSION, BASE_MODEL_PLURAL, name), f"reading basemodel/{name}"
        )
        if found["spec"]["uri"] != uri:
            raise CliError(f"--register {name}: the BaseModel of this name has the address {found['spec']['uri']}; choose another name")
        return False

    def _create_config_map(self, manifest: Manifest, job: Any) -> None:
        """Create what the pod reads; the one of an ended Job of this name may be on its way out."""
        name, namespace, uid = job.metadata.name, job.metadata.namespace, job.metadata.uid
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True, "blockOwnerDeletion": True}
        document: Any = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}
        while True:
            try:
                self._core.create_namespaced_config_map(namespace, document)
            except ApiException as error:
                if error.status != 409:
                    raise as_sentence(error, f"creating configmap/{name} in namespace {namespace}") from error
            else:
                return
            listed = self._cluster.call(
                lambda: self._core.list_namespaced_config_map(namespace, field_selector=f"metadata.name={name}"),
                f"reading configmap/{name}",
            )
            if any(reference.uid == uid for found in listed.items for reference in found.metadata.owner_references or ()):
                return
            time.sleep(POLL_SECONDS)

    def _create_job(self, manifest: Any) -> tuple[Any, bool]:
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        while True:
            try:
                return self._batch.create_namespaced_job(namespace, manifest), True
            except ApiException as error:
                if error.status != 409:
                    raise as_sentence(error, f"creating job/{name} in namespace {namespace}") from error
            found = self._job(name, namespace)
            if found is None:
                continue
            if ending(found) is None:
                return found, False
            self._remove(found)

    def _remove(self, job: Any) -> None:
        """Remove a Job with its pod and ConfigMap, and wait until they are gone."""
        name, namespace = job.metadata.name, job.metadata.namespace
        options = client.V1DeleteOptions(propagation_policy="Foreground", preconditions=client.V1Preconditions(uid=job.metadata.uid))
        try:
            self._batch.delete_namespaced_job(name, namespace, body=options)
        except ApiException as error:
            if error.status not in {404, 409}:
                raise as_sentence(error, f"deleting job/{name} in namespace {namespace}") from error
        while (found := self._job(name, namespace)) is not None and found.metadata.uid == job.metadata.uid:
            time.sleep(POLL_SECONDS)

    def _job(self, name: str, namespace: str) -> Any:
        """The Job; None where there is none."""
        selected = self._cluster.call(
            lambda: self._batch.list_namespaced_job(namespace, field_selector=f"metadata.name={name}"), f"reading job/{name}"
        )
        return next(iter(selected.items), None)

    def _pods(self, name: str, namespace: str) -> list[Any]:
        """Pods of the Job, oldest first."""
        listed = self._cluster.call(
            lambda: self._core.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={name}"),
            f"listing the pods of job/{name}",
        )
        return sorted(listed.items, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))

    def _lines(self, pod: Any) -> Iterator[str]:
        """What a pod says that was not told yet: why it does not start, or its log until it ends or the connection does."""
        name = pod.metadata.name
        if pod.status.phase == "Pending":
            yield f"{name}: {waiting_reason(pod)}"
            return
        told = self._told.get(name, 0)
        try:
            stream = self._core.read_namespaced_pod_log(
                name, pod.metadata.namespace, container=TRAINER_CONTAINER, follow=True, _preload_content=False
            )
            for number, line in enumerate(_split(stream), start=1):
                if number > told:
                    self._told[name] = number
                    yield plain(line)
        except (ApiException, urllib3.exceptions.HTTPError):
            return  # its last words are in its status; of one that lives the next look goes on

    @staticmethod
    def _ended(pod: Any, reason: str) -> bool:
        """Whether the container of a pod ended for a reason."""
        states = [status.state.terminated for status in pod.status.container_statuses or () if status.name == TRAINER_CONTAINER]
        return any(state is not None and state.reason == reason for state in states)

    @staticmethod
    def _left(pod: Any) -> str | None:
        """The termination message of a pod that has ended."""
        states = [status.state.terminated for status in pod.status.container_statuses or () if status.name == TRAINER_CONTAINER]
        return states[0].message if states and states[0] is not None else None


def ending(job: Any) -> Any:
    """The condition that says a Job has ended; None while it goes on."""
    return next((each for each in job.status.conditions or () if each.type in ENDED and each.status == "True"), None)


def judge(name: str, ended: Any, message: str | None) -> dict[str, object]:
    """The result of an ended Job.

    Raises:
        CliError: there is none.
    """
    try:
        left = TerminationMessage.model_validate_json(message or "")
        if left.failure_class is not None:
            raise CliError(left.message, advice=REACTIONS[left.failure_class].advice)
        return left.result or {}
    except ValidationError as error:
        said = (message or ended.message or "it left no word").strip()
        advice = "An image of another version does not know this: name one with --image." if "invalid choice" in said else ""
        raise CliError(f"job/{name} ended without a result: {said[-600:]}", advice=advice or "kubectl logs has more.") from error


def waiting_reason(pod: Any) -> str:
    """Why a pod does not run yet."""
    for status in pod.status.container_statuses or ():
        if status.state.waiting is not None and status.state.waiting.reason != "ContainerCreating":
            return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}".rstrip(": ")
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message}"
    return "is starting"


def plain(line: str) -> str:
    """What a line of the pod's log says."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def _split(stream: Any) -> Iterator[str]:
    """Lines of a log as it comes."""
    rest = b""
    for piece in stream.stream(amt=4096):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
