"""Jobs of one short pod of the trainer image that the command line makes itself: what the pod is told, sees and may do.

They are named after what they are told, so that the same question is one Job.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from finetune_api.constants import DEFAULT_STORE_SECRET, LABEL_COMPONENT, LABEL_JOB, LABEL_MANAGED_BY
from finetune_api.contract import env
from finetune_api.contract.base import ContractModel
from finetune_api.contract.failures import EXIT_USER_ERROR
from finetune_api.contract.pod import SECRET_MODE, identity_environment, outside_environment, pod_around, short_container
from finetune_cli.errors import CliError
from finetune_cli.installation import looks_after, settings_of

Manifest = dict[str, Any]
MANAGED_BY: Final = "kubectl-finetune"
TRIES: Final = 5
"""Pods one after the other."""
LONGEST_SECONDS: Final = 24 * 3600
KEPT_SECONDS: Final = 24 * 3600
"""How long the ended Job is kept for kubectl logs."""
EXIT_USAGE: Final = 2
"""Of an image that does not know the verb."""
MAX_SLUG: Final = 40


class Surroundings(NamedTuple):
    """What pods of the trainer need here; the operator's own settings."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    endpoint: str | None = None
    """Of the store, where its Secret names none."""
    region: str | None = None
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str | None = None
    ca_configmap: str | None = None
    ca_key: str = "ca.crt"
    is_offline: bool = False
    store_secret: str = DEFAULT_STORE_SECRET
    """Secret with the store's keys that jobs use where they name none."""


def read_surroundings(deployments: Iterable[Mapping[str, Any]], namespace: str) -> Surroundings:
    """Take the settings of the operator that looks after a namespace from its Deployment.

    Raises:
        CliError: there is none.
    """
    advice = "Name the trainer image with --image."
    for deployment in deployments:
        found = settings_of(deployment)
        if "TRAINER_IMAGE" in found and looks_after(found, namespace):
            return _surroundings(found)
    raise CliError(f"no operator that looks after namespace {namespace} is installed in this cluster", advice=advice)


def _surroundings(found: Mapping[str, str]) -> Surroundings:
    endpoint = found.get("STORAGE_ENDPOINT")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if found.get('STORAGE_SECURE', 'true').lower() == 'false' else 'https'}://{endpoint}"
    return Surroundings(
        image=found["TRAINER_IMAGE"],
        pull_policy=found.get("IMAGE_PULL_POLICY", "IfNotPresent"),
        pull_secrets=tuple(name for name in found.get("IMAGE_PULL_SECRETS", "").split(",") if name),
        endpoint=endpoint,
        region=found.get("STORAGE_REGION"),
        http_proxy=found.get("TRAINER_HTTP_PROXY"),
        https_proxy=found.get("TRAINER_HTTPS_PROXY"),
        no_proxy=found.get("TRAINER_NO_PROXY"),
        ca_configmap=found.get("TRAINER_CA_CONFIGMAP"),
        ca_key=found.get("TRAINER_CA_KEY", "ca.crt"),
        is_offline=found.get("TRAINER_OFFLINE", "").lower() == "true",
        store_secret=found.get("STORAGE_SECRET", DEFAULT_STORE_SECRET),
    )


class Mount(NamedTuple):
    """A volume and where it is seen."""

    volume: Manifest
    mount: Manifest


class ShortJob(NamedTuple):
    """What is created, in this order."""

    job: Manifest
    config_map: Manifest
    """Goes with the Job, once its uid is known."""


def build_short_job(
    verb: str, subject: str, config: ContractModel, *, namespace: str, sees: Sequence[Mount], here: Surroundings
) -> ShortJob:
    """The Job of a verb. ``subject`` is in its name, for people; ``sees`` are the volumes beside scratch and the config."""
    document = config.to_json()
    slug = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:MAX_SLUG].rstrip("-")
    metadata = {
        "name": f"{verb}-{slug}-{hashlib.sha256(document.encode()).hexdigest()[:8]}",
        "namespace": namespace,
        # The empty job has the network policies of jobs find the pod.
        "labels": {LABEL_JOB: "", LABEL_COMPONENT: verb, LABEL_MANAGED_BY: MANAGED_BY},
    }
    failures = {"containerName": env.TRAINER_CONTAINER, "operator": "In", "values": [EXIT_USAGE, EXIT_USER_ERROR]}
    run = mount_volume("run", posixpath.dirname(env.RUN_CONFIG_PATH), {"configMap": {"name": metadata["name"]}})
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": TRIES - 1,
            "activeDeadlineSeconds": LONGEST_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": failures}]},
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": _pod_spec(verb, [run, *sees], here)},
        },
    }
    key = posixpath.basename(env.RUN_CONFIG_PATH)
    return ShortJob(job, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": {key: document}})


def mount_volume(name: str, path: str, source: Manifest) -> Mount:
    """A volume and where it is seen; only scratch may be written to."""
    return Mount({"name": name, **source}, {"name": name, "mountPath": path, **({} if "emptyDir" in source else {"readOnly": True})})


def mount_cache(claim: str) -> Mount:
    """A claim with models that earlier pods have fetched, which may be written to, in the place of scratch."""
    return Mount({"name": "cache", "persistentVolumeClaim": {"claimName": claim}}, {"name": "cache", "mountPath": env.CACHE_DIR})


def mount_sources(uris: Iterable[str]) -> list[Mount]:
    """Claims and ConfigMaps that addresses name, each once."""
    named = sorted({(match[1], match[2]) for uri in uris if (match := re.match(r"(pvc|configmap)://([^/]+)", uri))})
    return [_source(number, kind, name) for number, (kind, name) in enumerate(named)]


def _source(number: int, kind: str, name: str) -> Mount:
    if kind == "pvc":
        return mount_volume(f"source-{number}", f"{env.PVC_DIR}/{name}", {"persistentVolumeClaim": {"claimName": name, "readOnly": True}})
    return mount_volume(f"source-{number}", f"{env.CONFIGMAP_DIR}/{name}", {"configMap": {"name": name, "optional": True}})


def mount_secret(directory: str, name: str) -> Mount:
    """A credential; optional, since a pod that waits for a missing Secret says nothing, while the verb names what is missing."""
    source = {"secret": {"secretName": name, "optional": True, "defaultMode": SECRET_MODE}}
    return mount_volume(f"secret-{directory}", f"{env.SECRETS_DIR}/{directory}", source)


def _pod_spec(verb: str, sees: Sequence[Mount], here: Surroundings) -> Manifest:
    scratch = (("work", env.WORK_DIR), ("tmp", "/tmp"), ("cache", env.CACHE_DIR))  # noqa: S108 - a mount point
    seen = {mount["mountPath"] for _, mount in sees}
    mounted = [*sees, *(mount_volume(name, path, {"emptyDir": {}}) for name, path in scratch if path not in seen)]
    if here.ca_configmap:
        mounted.append(mount_volume("trust", env.CA_BUNDLE_DIR, {"configMap": {"name": here.ca_configmap, "optional": True}}))
    outside = outside_environment(
        http_proxy=here.http_proxy,
        https_proxy=here.https_proxy,
        no_proxy=here.no_proxy,
        ca_key=here.ca_key if here.ca_configmap else None,
    )
    program = {"image": here.image, "imagePullPolicy": here.pull_policy, "args": [verb]}
    container = short_container(program, [*identity_environment(here.image), *outside])
    return pod_around(container, [mount for _, mount in mounted], [volume for volume, _ in mounted], here.pull_secrets)
