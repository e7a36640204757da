"""Parts of the pods in which the trainer image runs, whoever makes them: Pod Security ``restricted``, and what tells a pod which it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from finetune_api.contract import env

USER_ID: Final = 65532
"""User and group of the trainer image."""
SECRET_MODE: Final = 0o440
"""Of the files of a Secret: readable by the pod's fsGroup alone."""
SHORT_VERB_RESOURCES: Final = {"requests": {"cpu": "100m", "memory": "256Mi"}}
"""Of the container of a verb that neither trains nor loads weights."""
WEIGHTS_BASE_BYTES: Final = 2 * 2**30
"""Libraries, tokenizer, one tensor in two precisions."""
IN_CLUSTER: Final = ("localhost", "127.0.0.1", ".svc", ".cluster.local")
"""Never asked through a proxy."""


def pod_security() -> dict[str, Any]:
    """The ``securityContext`` of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(*, writable_root: bool = False) -> dict[str, Any]:
    """The ``securityContext`` of its container."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": not writable_root, "capabilities": {"drop": ["ALL"]}}


def pod_around(
    container: Mapping[str, Any], mounts: Sequence[Mapping[str, Any]], volumes: Sequence[Mapping[str, Any]], pull_secrets: Sequence[str]
) -> dict[str, Any]:
    """Pod spec of one container with its volumes, as Pod Security ``restricted`` wants it; soon over once it shall end."""
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": pod_security(),
        "containers": [{**container, "volumeMounts": list(mounts)}],
        "volumes": list(volumes),
        **({"imagePullSecrets": [{"name": name} for name in pull_secrets]} if pull_secrets else {}),
    }


def short_container(program: Mapping[str, Any], environment: Sequence[Mapping[str, Any]], *, writable_root: bool = False) -> dict[str, Any]:
    """The container of a verb that is short: what it runs, with these variables."""
    return {
        "name": env.TRAINER_CONTAINER,
        **program,
        "env": list(environment),
        "resources": SHORT_VERB_RESOURCES,
        "securityContext": container_security(writable_root=writable_root),
        "terminationMessagePath": env.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def memory_of_weights(facts: Mapping[str, str]) -> str:
    """Memory of a container that holds a model once, as a quantity; ``facts`` are the trainer's (``totalParameters``, ``dtype``).

    A quarter is to spare for work on one layer. Where the size is not known, only the base.
    """
    parameters = facts.get("totalParameters", "")
    width = 4 if facts.get("dtype") == "float32" else 2
    weights = int(parameters) * width * 5 // 4 if parameters.isdecimal() else 0
    return f"{(weights + WEIGHTS_BASE_BYTES) // 2**20}Mi"


def identity_environment(image: str) -> list[dict[str, Any]]:
    """Variables that tell a trainer which pod it is."""
    from_pod = {
        env.ENV_POD_NAME: "metadata.name",
        env.ENV_POD_UID: "metadata.uid",
        env.ENV_POD_NAMESPACE: "metadata.namespace",
        env.ENV_NODE_NAME: "spec.nodeName",
    }
    entries: list[dict[str, Any]] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in from_pod.items()]
    return [*entries, {"name": env.ENV_IMAGE, "value": image}, {"name": "HOME", "value": env.WORK_DIR}]


def outside_environment(
    *, http_proxy: str | None, https_proxy: str | None, no_proxy: str | None, ca_key: str | None
) -> list[dict[str, Any]]:
    """Variables of proxies that every library understands, and the name of the CA bundle, which the trainer turns into theirs.

    ``ca_key`` is the key in the ConfigMap mounted at :data:`finetune_api.contract.env.CA_BUNDLE_DIR`; None: there is none.
    """
    values = {"HTTP_PROXY": http_proxy, "HTTPS_PROXY": https_proxy}
    if any(values.values()):
        values["NO_PROXY"] = ",".join((*IN_CLUSTER, *filter(None, [no_proxy])))
    if ca_key:
        values[env.ENV_CA_BUNDLE] = f"{env.CA_BUNDLE_DIR}/{ca_key}"
    return [{"name": name, "value": value} for name, value in values.items() if value]
