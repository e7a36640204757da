"""Where the pods of a run go: affinity, how the ranks lie to each other, and devices that are claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.constants import LABEL_COMPONENT, LABEL_JOB, LABEL_REGION, LABEL_RUN
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.base import ApiModel
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.scheduling import RankTopology, Toleration
from finetune_api.models.spec import Resources
from finetune_operator.plan.observed import COMPONENT_TRAINER, Manifest

_REQUIRED, _PREFERRED = (f"{mode}DuringSchedulingIgnoredDuringExecution" for mode in ("required", "preferred"))
TOGETHER_WEIGHT = 100


def as_manifest(model: ApiModel) -> Manifest:
    """A part of the spec that has Kubernetes' own shape, as it goes into a pod."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def build_placement(config: RunConfig) -> Manifest:
    """The parts of a training pod's spec that say where it may run; empty for a job that does not care."""
    resources = config.spec.resources
    spec: Manifest = {}
    affinity = as_manifest(resources.affinity) if resources.affinity is not None else {}
    if resources.topology is not None:
        ranks = {LABEL_JOB: config.job.name, LABEL_RUN: str(config.run), LABEL_COMPONENT: COMPONENT_TRAINER}
        affinity, spread = _arrange(resources.topology, ranks, affinity)
        if spread:
            spec["topologySpreadConstraints"] = spread
    gpu_type = gpu_type_of(config)
    if gpu_type is not None and gpu_type.regions:
        affinity = _within(affinity, gpu_type.regions)
    if affinity:
        spec["affinity"] = affinity
    selector = {**(resources.node_selector or {}), **((gpu_type.node_selector or {}) if gpu_type is not None else {})}
    if selector:
        spec["nodeSelector"] = selector
    if resources.runtime_class_name:
        spec["runtimeClassName"] = resources.runtime_class_name
    if resources.resource_claims:
        spec["resourceClaims"] = [_claim(resources, index) for index in range(len(resources.resource_claims))]
    if resources.pod_template is not None and resources.pod_template.scheduler_name:
        spec["schedulerName"] = resources.pod_template.scheduler_name
    return spec


def gpu_type_of(config: RunConfig) -> GpuTypeSpec | None:
    """The GpuType a run is made from."""
    return config.gpu_type.spec if config.gpu_type is not None else None


def tolerations_of_ranks(config: RunConfig) -> list[Toleration]:
    """What the pods that train tolerate: as the job says, and the taints of its GpuType."""
    own = list(config.spec.resources.tolerations or ())
    gpu_type = gpu_type_of(config)
    return own + [each for each in (gpu_type.tolerations or () if gpu_type is not None else ()) if each not in own]


def claims_of_container(resources: Resources) -> list[Manifest]:
    """What the trainer container uses of the pod's claims."""
    claims = resources.resource_claims or []
    return [{"name": claim.name, **({"request": claim.request} if claim.request else {})} for claim in claims]


def gpus_are_claimed(resources: Resources) -> bool:
    """Whether the GPUs come by a claim, so that the extended resource is not asked for."""
    return any(claim.supplies_gpus for claim in resources.resource_claims or ())


def _claim(resources: Resources, index: int) -> Manifest:
    assert resources.resource_claims is not None
    claim = as_manifest(resources.resource_claims[index])
    return {name: claim[name] for name in ("name", "resourceClaimName", "resourceClaimTemplateName") if name in claim}


def _arrange(topology: RankTopology, ranks: Mapping[str, str], affinity: Manifest) -> tuple[Manifest, list[Manifest]]:
    """(affinity, spread constraints) that bring the ranks together or apart. ``ranks``: labels of the run's own pods.

    Required affinity to one's own kind does not keep the first pod out: the scheduler lets a pod that matches its own term go first.
    """
    selector = {"labelSelector": {"matchLabels": dict(ranks)}}
    term = {**selector, "topologyKey": topology.key}
    match topology.ranks:
        case "RequireTogether":
            return _with_pod_affinity(affinity, _REQUIRED, term), []
        case None | "PreferTogether":
            return _with_pod_affinity(affinity, _PREFERRED, {"weight": TOGETHER_WEIGHT, "podAffinityTerm": term}), []
        case "RequireApart" | "PreferApart":
            unsatisfiable = "DoNotSchedule" if topology.ranks == "RequireApart" else "ScheduleAnyway"
            return affinity, [{"maxSkew": 1, "topologyKey": topology.key, "whenUnsatisfiable": unsatisfiable, **selector}]


def _within(affinity: Manifest, regions: Sequence[str]) -> Manifest:
    """The affinity with all of its nodes in some regions. Of node selector terms one must hold, so each gets the requirement."""
    requirement = {"key": LABEL_REGION, "operator": "In", "values": list(regions)}
    nodes = affinity.get("nodeAffinity") or {}
    terms = (nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    inside = [{**term, "matchExpressions": [*term.get("matchExpressions", ()), requirement]} for term in terms]
    return {**affinity, "nodeAffinity": {**nodes, _REQUIRED: {"nodeSelectorTerms": inside}}}


def _with_pod_affinity(affinity: Manifest, mode: str, term: Manifest) -> Manifest:
    pods = affinity.get("podAffinity") or {}
    return {**affinity, "podAffinity": {**pods, mode: [*(pods.get(mode) or ()), term]}}
