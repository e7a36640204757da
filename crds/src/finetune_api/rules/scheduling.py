"""Rules for where pods run: what Kubernetes would refuse only when the pods are made, and names that belong to others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from finetune_api import cel
from finetune_api.constants import GROUP
from finetune_api.rules.rule import Rule
from finetune_api.written import Written

_QUEUE, _PRIORITY = "resources.queue", "resources.queuePriorityClass"
_AFFINITY, _CLAIMS = "resources.affinity", "resources.resourceClaims"
_LABELS, _ANNOTATIONS, _ENV = (f"resources.podTemplate.{name}" for name in ("labels", "annotations", "env"))
_REQUIRED, _PREFERRED = (f"{mode}DuringSchedulingIgnoredDuringExecution" for mode in ("required", "preferred"))

RESERVED_LABELS = (f"{GROUP}/", "batch.kubernetes.io/", "kueue.x-k8s.io/", "app.kubernetes.io/managed-by")
RESERVED_ANNOTATIONS = (f"{GROUP}/", "batch.kubernetes.io/")
RESERVED_PREFIXES = ("FINETUNE_", "KUBEFLOW_TRAINER_")
RESERVED_VARIABLES = (
    *("HOME", "PATH", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("JOB_COMPLETION_INDEX", "DISABLE_KUBEFLOW_INTEGRATION"),
)
"""Variables that the operator and the supervisor set themselves."""


def _all_keys(path: str, prefixes: tuple[str, ...]) -> str:
    reserved = cel.all_of(*(f"!key.startsWith('{prefix}')" for prefix in prefixes))
    return cel.unless(path, f"self.{path}.all(key, {reserved})")


def _keys_are_free(spec: Written, path: str, prefixes: tuple[str, ...]) -> bool:
    return not any(key.startswith(prefixes) for key in spec[path] or ())


def _lists(name: str) -> Iterator[tuple[str, str]]:
    """CEL paths of the lists in an affinity that hold expressions: (list of terms, expressions within a term)."""
    if name == "nodeAffinity":
        yield f"{_AFFINITY}.{name}.{_REQUIRED}.nodeSelectorTerms", "matchExpressions"
        yield f"{_AFFINITY}.{name}.{_PREFERRED}", "preference.matchExpressions"
    else:
        yield f"{_AFFINITY}.{name}.{_REQUIRED}", "labelSelector.matchExpressions"
        yield f"{_AFFINITY}.{name}.{_PREFERRED}", "podAffinityTerm.labelSelector.matchExpressions"


_FITS = (
    "(e.operator in ['In', 'NotIn'] ? has(e.values) && e.values.size() > 0 : "
    "e.operator in ['Gt', 'Lt'] ? has(e.values) && e.values.size() == 1 : !has(e.values) || e.values.size() == 0)"
)


def _values_fit(kinds: Iterable[str]) -> str:
    conditions = []
    for kind in kinds:
        for path, inner in _lists(kind):
            parts = inner.split(".")
            absent = [f"!has(term.{'.'.join(parts[: depth + 1])})" for depth in range(len(parts))]
            conditions.append(cel.unless(path, f"self.{path}.all(term, {cel.any_of(*absent, f'term.{inner}.all(e, {_FITS})')})"))
    return cel.all_of(*conditions)


def _expressions(node: object) -> Iterator[Mapping[str, Any]]:
    """Every expression in an affinity, at any depth."""
    if isinstance(node, Mapping):
        yield from node.get("matchExpressions") or ()
        for child in node.values():
            yield from _expressions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _expressions(child)


def _fits(expression: Mapping[str, Any]) -> bool:
    count = len(expression.get("values") or ())
    match expression["operator"]:
        case "In" | "NotIn":
            return count > 0
        case "Gt" | "Lt":
            return count == 1
        case _:
            return count == 0


def _affinity_fits(spec: Written, kind: str) -> bool:
    below = [value for path, value in spec.leaves.items() if path.startswith(f"{_AFFINITY}.{kind}.")]
    return all(_fits(expression) for value in below for expression in _expressions(value))


def _claims(spec: Written) -> list[Mapping[str, Any]]:
    return list(spec[_CLAIMS] or ())


SCHEDULING_RULES = (
    Rule(
        id="queue-priority",
        requirement="L-09",
        path=_PRIORITY,
        message="needs resources.queue: it orders the jobs of a queue",
        cel=cel.any_of(f"!{cel.has(_PRIORITY)}", cel.has(_QUEUE)),
        holds=lambda spec: not spec.has(_PRIORITY) or spec.has(_QUEUE),
        open=(_QUEUE,),
    ),
    Rule(
        id="affinity-nodes",
        requirement="L-09",
        path=f"{_AFFINITY}.nodeAffinity",
        message="In and NotIn need values, Gt and Lt exactly one, Exists and DoesNotExist none",
        cel=_values_fit(("nodeAffinity",)),
        holds=lambda spec: _affinity_fits(spec, "nodeAffinity"),
    ),
    Rule(
        id="affinity-pods",
        requirement="L-09",
        path=_AFFINITY,
        message="in podAffinity and podAntiAffinity, In and NotIn need values, Exists and DoesNotExist have none",
        cel=_values_fit(("podAffinity", "podAntiAffinity")),
        holds=lambda spec: _affinity_fits(spec, "podAffinity") and _affinity_fits(spec, "podAntiAffinity"),
    ),
    Rule(
        id="claim-source",
        requirement="L-09",
        path=_CLAIMS,
        message="an entry has either resourceClaimName or resourceClaimTemplateName",
        cel=cel.unless(_CLAIMS, f"self.{_CLAIMS}.all(entry, has(entry.resourceClaimName) != has(entry.resourceClaimTemplateName))"),
        holds=lambda spec: all(("resourceClaimName" in e) != ("resourceClaimTemplateName" in e) for e in _claims(spec)),
    ),
    Rule(
        id="claim-names",
        requirement="L-09",
        path=_CLAIMS,
        message="no two entries have the same name",
        cel=cel.unless(_CLAIMS, f"self.{_CLAIMS}.all(a, self.{_CLAIMS}.exists_one(b, b.name == a.name))"),
        holds=lambda spec: len({entry["name"] for entry in _claims(spec)}) == len(_claims(spec)),
    ),
    Rule(
        id="pod-labels",
        requirement="L-09",
        path=_LABELS,
        message=f"{', '.join(RESERVED_LABELS)} belong to the operator and to the queue (resources.queue)",
        cel=_all_keys(_LABELS, RESERVED_LABELS),
        holds=lambda spec: _keys_are_free(spec, _LABELS, RESERVED_LABELS),
    ),
    Rule(
        id="pod-annotations",
        requirement="L-09",
        path=_ANNOTATIONS,
        message=f"{' and '.join(RESERVED_ANNOTATIONS)} belong to the operator",
        cel=_all_keys(_ANNOTATIONS, RESERVED_ANNOTATIONS),
        holds=lambda spec: _keys_are_free(spec, _ANNOTATIONS, RESERVED_ANNOTATIONS),
    ),
    Rule(
        id="pod-env",
        requirement="L-09",
        path=_ENV,
        message=f"{', '.join(f'{prefix}*' for prefix in RESERVED_PREFIXES)} and the variables of the rank group "
        f"({', '.join(RESERVED_VARIABLES)}) are set by the operator and the trainer",
        cel=cel.unless(
            _ENV,
            f"self.{_ENV}.all(entry, !(entry.name in {cel.literal(RESERVED_VARIABLES)})"
            f" && {' && '.join(f'!entry.name.startsWith({cel.literal(prefix)})' for prefix in RESERVED_PREFIXES)})",
        ),
        holds=lambda spec: all(
            entry["name"] not in RESERVED_VARIABLES and not entry["name"].startswith(RESERVED_PREFIXES) for entry in spec[_ENV] or ()
        ),
    ),
)
