"""Where the pods of a job may run, in which queue they wait, and what else their template carries.

The shapes are Kubernetes' own, so that what is known from a Deployment can be pasted; each list, map and text has a bound. What would let
the author of a job act beyond the namespace is not there: no other namespaces in pod affinity, no service account, no volumes of the host.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.models.base import ApiModel, Name, api_field

LABEL_NAME_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_TEXT_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"

LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=316)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=316, pattern=LABEL_NAME_PATTERN)]
"""The key of a label, where it is no key of a map (a map's keys are judged by rules)."""
LabelText = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_TEXT_PATTERN)]
"""The value of a label."""
DnsLabel = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=DNS_LABEL_PATTERN)]
AnnotationText = Annotated[str, StringConstraints(max_length=1024)]
Values = Annotated[list[LabelText], Field(max_length=32)]


class Toleration(ApiModel):
    """A Kubernetes toleration."""

    key: str | None = api_field(default=None, max_length=316)
    """Taint key; unset with operator Exists tolerates all."""
    operator: Literal["Exists", "Equal"] | None = api_field(default=None)
    """How value is compared. Unset: Equal."""
    value: str | None = api_field(default=None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = api_field(default=None)
    """Taint effect; unset = all."""
    toleration_seconds: int | None = api_field(default=None, ge=0, le=86400, unit="seconds")
    """How long a NoExecute taint is tolerated."""


class NodeRequirement(ApiModel):
    """What a label of a node must be."""

    key: LabelName = api_field()
    """Label of the node."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = api_field()
    """How its value is compared."""
    values: Values | None = api_field(default=None)
    """With In and NotIn at least one, with Gt and Lt one number, else none."""


class NodeSelectorTerm(ApiModel):
    """Requirements that must all hold."""

    match_expressions: list[NodeRequirement] = api_field(min_length=1, max_length=16)
    """Requirements on labels of the node."""


class NodeSelector(ApiModel):
    """Terms of which one must hold."""

    node_selector_terms: list[NodeSelectorTerm] = api_field(min_length=1, max_length=8)
    """The terms."""


class PreferredNodes(ApiModel):
    """Nodes the scheduler prefers."""

    weight: int = api_field(ge=1, le=100)
    """How strongly."""
    preference: NodeSelectorTerm = api_field()
    """Which nodes."""


class NodeAffinity(ApiModel):
    """On which nodes pods run."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = api_field(default=None, requirement="L-02 L-09")
    """Nodes a pod must be on."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredNodes] | None = api_field(
        default=None, max_length=8, requirement="L-02 L-09"
    )
    """Nodes a pod should be on."""


class LabelRequirement(ApiModel):
    """What a label of a pod must be."""

    key: LabelName = api_field()
    """Label of the pod."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = api_field()
    """How its value is compared."""
    values: Values | None = api_field(default=None)
    """With In and NotIn at least one, else none."""


class PodSelector(ApiModel):
    """Pods of the job's namespace; all requirements must hold."""

    match_labels: dict[LabelKey, LabelText] | None = api_field(default=None, max_length=16)
    """Labels the pods have."""
    match_expressions: list[LabelRequirement] | None = api_field(default=None, max_length=16)
    """Requirements on their labels."""


class PodAffinityTerm(ApiModel):
    """Near to, or away from, certain pods."""

    label_selector: PodSelector = api_field()
    """Which pods of the job's namespace."""
    topology_key: LabelName = api_field()
    """Nodes with the same value of this label count as one place."""


class PreferredPods(ApiModel):
    """Pods the scheduler prefers to be near to, or away from."""

    weight: int = api_field(ge=1, le=100)
    """How strongly."""
    pod_affinity_term: PodAffinityTerm = api_field()
    """Which pods, and what a place is."""


class PodAffinity(ApiModel):
    """Near to, or away from, other pods of the namespace."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] | None = api_field(
        default=None, max_length=4, requirement="L-09"
    )
    """What must hold."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredPods] | None = api_field(
        default=None, max_length=4, requirement="L-09"
    )
    """What should hold."""


class Affinity(ApiModel):
    """Kubernetes' affinity, for the pods that train."""

    node_affinity: NodeAffinity | None = api_field(default=None)
    """On which nodes."""
    pod_affinity: PodAffinity | None = api_field(default=None)
    """Near which pods."""
    pod_anti_affinity: PodAffinity | None = api_field(default=None)
    """Away from which pods."""


class RankTopology(ApiModel):
    """How the pods of one job lie to each other."""

    key: LabelName = api_field(requirement="L-09")
    """Nodes with the same value of this label count as one place, for example topology.kubernetes.io/zone or a rack's label."""
    ranks: Literal["PreferTogether", "RequireTogether", "PreferApart", "RequireApart"] | None = api_field(default=None, requirement="L-09")
    """Together: in one place, for fast collectives. Apart: evenly over places. Prefer yields where it must. Unset: PreferTogether."""


class ResourceClaim(ApiModel):
    """A device asked for by Dynamic Resource Allocation (Kubernetes 1.34 or newer); passed on as it is."""

    name: DnsLabel = api_field(requirement="L-09")
    """Name of the claim inside the pod."""
    resource_claim_name: Name | None = api_field(default=None, requirement="L-09")
    """A ResourceClaim of the namespace, which all pods share."""
    resource_claim_template_name: Name | None = api_field(default=None, requirement="L-09")
    """A ResourceClaimTemplate of the namespace: each pod gets a claim of its own."""
    request: DnsLabel | None = api_field(default=None, requirement="L-09")
    """One request of the claim. Unset: all of them."""
    supplies_gpus: bool | None = api_field(default=None, requirement="L-09")
    """true: the pod's GPUs come by this claim, and nvidia.com/gpu (or the gpuType's resource) is not asked for."""


class EnvironmentVariable(ApiModel):
    """A variable for the trainer, for example NCCL_SOCKET_IFNAME."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=VARIABLE_PATTERN)] = api_field(requirement="L-09")
    """Its name."""
    value: str = api_field(max_length=1024, requirement="L-09")
    """Its value; no place for secrets."""


class PodTemplate(ApiModel):
    """What else the job's pods carry. Narrow on purpose: whoever may create a job gets no rights beyond it by this."""

    labels: dict[LabelKey, LabelText] | None = api_field(default=None, max_length=16, requirement="L-09")
    """Labels added to the pods, for example for cost reports."""
    annotations: dict[LabelKey, AnnotationText] | None = api_field(default=None, max_length=16, requirement="L-09")
    """Annotations added to the pods, for example sidecar.istio.io/inject or kueue.x-k8s.io/podset-preferred-topology."""
    scheduler_name: Name | None = api_field(default=None, requirement="L-09")
    """Scheduler of the pods that train. Unset: the cluster's."""
    env: list[EnvironmentVariable] | None = api_field(default=None, max_length=32, requirement="L-09")
    """Variables added to the trainer's environment."""
