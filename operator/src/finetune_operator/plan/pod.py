"""The pod template of a trainer pod: Pod Security ``restricted``, no API credentials, everything it needs as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.constants import GPU_RESOURCE
from finetune_api.contract import env
from finetune_api.contract import pod as contract_pod
from finetune_api.contract.pod import identity_environment, short_container
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.scheduling import Toleration
from finetune_api.models.training_method import TrainingMethodSpec
from finetune_api.quantities import number_of
from finetune_operator.plan.custom_pod import custom_environment, custom_program
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.outside import build_outside_environment
from finetune_operator.plan.placement import (
    as_manifest,
    build_placement,
    claims_of_container,
    gpu_type_of,
    gpus_are_claimed,
    tolerations_of_ranks,
)
from finetune_operator.plan.volumes import Mounted, build_volumes
from finetune_operator.settings import PlanSettings

MIB = 2**20
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def build_pod_spec(config: RunConfig, config_map: str, verb: str, settings: PlanSettings) -> Manifest:
    """Pod spec of ``finetune-trainer <verb>``. Verbs other than train are short and need neither GPU nor the node the training wants."""
    resources, custom = config.spec.resources, _own_program(config, verb)
    mounted = build_volumes(config, config_map, verb, settings)
    tolerations = tolerations_of_ranks(config) if verb == "train" else resources.tolerations or ()
    spec = pod_around(_container(config, verb, settings), mounted, settings, tolerations)
    if resources.priority_class_name:
        spec["priorityClassName"] = resources.priority_class_name
    if verb != "train":
        return spec
    if custom is not None and custom.run_as_user:
        spec["securityContext"]["runAsUser"] = custom.run_as_user
    return {**spec, "terminationGracePeriodSeconds": config.spec.pause_policy.grace_seconds, **build_placement(config)}


def pod_around(container: Manifest, mounted: Sequence[Mounted], settings: PlanSettings, tolerations: Sequence[Toleration] = ()) -> Manifest:
    """The contract's pod spec of one container, which also leaves a dead node in time."""
    spec = contract_pod.pod_around(container, [m.mount for m in mounted], [m.volume for m in mounted], settings.image_pull_secrets)
    return {**spec, "tolerations": _dead_node_tolerations(tolerations, settings.unreachable_toleration_seconds)}


def build_container(program: Manifest, environment: Sequence[Manifest], settings: PlanSettings, *, writable_root: bool = False) -> Manifest:
    """The container of a short verb: what it runs, with these variables and those of the cluster's surroundings."""
    return short_container(program, [*environment, *build_outside_environment(settings)], writable_root=writable_root)


def build_pod_metadata(config: RunConfig, labels: Mapping[str, str]) -> Manifest:
    """Metadata of a pod template: what the job adds, and ``labels``, which nothing overrides."""
    template = config.spec.resources.pod_template
    if template is None:
        return {"labels": dict(labels)}
    annotations = {"annotations": dict(template.annotations)} if template.annotations else {}
    return {"labels": {**(template.labels or {}), **labels}, **annotations}


def _container(config: RunConfig, verb: str, settings: PlanSettings) -> Manifest:
    custom = _own_program(config, verb)
    image = config.spec.resources.image or settings.trainer_image
    program = custom_program(config, settings) if custom is not None else trainer_program(image, verb, settings)
    environment = _environment(config, verb, program["image"], settings)
    writable_root = custom is not None and custom.writable_root
    return {
        **build_container(program, environment, settings, writable_root=writable_root),
        "ports": [{"name": "metrics", "containerPort": env.METRICS_PORT}] if verb == "train" and custom is None else [],
        **({"resources": _resources(config)} if verb == "train" else {}),
    }


def _own_program(config: RunConfig, verb: str) -> TrainingMethodSpec | None:
    """The TrainingMethod whose program the container runs: it trains, everything else is our own trainer's."""
    return config.custom.spec if verb == "train" and config.custom is not None else None


def trainer_program(image: str, verb: str, settings: PlanSettings) -> Manifest:
    """Our own trainer."""
    return {"image": image, "imagePullPolicy": settings.image_pull_policy, "args": [verb]}


def _environment(config: RunConfig, verb: str, image: str, settings: PlanSettings) -> list[Manifest]:
    entries = identity_environment(image)
    threads = _threads(config)
    if verb == "train" and threads is not None:
        entries.append({"name": "OMP_NUM_THREADS", "value": str(threads)})
    if _own_program(config, verb) is not None:
        entries += custom_environment(config, settings)
    template = config.spec.resources.pod_template
    written = (template.env or ()) if template is not None else ()
    own = {variable.name for variable in written}
    return [entry for entry in entries if entry["name"] not in own] + [as_manifest(variable) for variable in written]


def _threads(config: RunConfig) -> int | None:
    """CPU threads per rank: its share of the CPUs asked for. Without a request 1 in a group (ranks may share a node), else unset."""
    asked = config.spec.resources.cpu
    if asked is None:
        return 1 if config.topology.world_size > 1 else None
    return max(1, int(number_of(asked) / config.topology.processes_per_replica))


def _resources(config: RunConfig) -> Manifest:
    resources = config.spec.resources
    requests: Manifest = {}
    limits: Manifest = {}
    if resources.cpu:
        requests["cpu"] = resources.cpu
    if resources.memory:
        requests["memory"] = limits["memory"] = resources.memory
    elif config.pod_bytes is not None:
        requests["memory"] = f"{-(-config.pod_bytes // MIB)}Mi"  # no limit: an estimate must not end a pod
    if resources.ephemeral_storage:
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = resources.ephemeral_storage
    if resources.device == "gpu" and not gpus_are_claimed(resources):
        gpu_type = gpu_type_of(config)
        limits[gpu_type.resource_name if gpu_type is not None else GPU_RESOURCE] = str(resources.gpus_per_replica)
    claims = claims_of_container(resources)
    return {"requests": requests, "limits": limits, **({"claims": claims} if claims else {})}


def _dead_node_tolerations(written: Sequence[Toleration], seconds: int) -> list[Manifest]:
    """What the job tolerates, and dead nodes for a short time only, unless the job says otherwise itself."""
    own = {toleration.key for toleration in written}
    entries = [as_manifest(toleration) for toleration in written]
    return entries + [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds} for key in _NODE_TAINTS if key not in own
    ]
