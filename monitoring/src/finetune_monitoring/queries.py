"""PromQL put together from the table of metrics. A job's values may come from several pods or replicas: all are aggregated by job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from finetune_api.contract import metrics
from finetune_api.contract.metrics import LABELS, Kind, Metric
from finetune_api.models.status import Phase

RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"
INTERVAL: Final = "$__interval"
BY_JOB: Final = ", ".join(LABELS)

ONE_JOB: Final = 'finetune_namespace=~"$namespace", finetune_job=~"$name"'
"""Selector of the dashboards Job and Compare: by namespace and name."""
IN_NAMESPACES: Final = 'finetune_namespace=~"$namespace"'
"""Selector of the dashboard Fleet."""
ONE_OPERATOR: Final = 'job=~"$job", instance=~"$instance"'
"""Selector of the operator's own metrics."""

PHASE_CODES: Final[dict[Phase, int]] = {phase: number for number, phase in enumerate(Phase, start=1)}
"""Phases as numbers, which stat panels and state timelines map back to names and colours."""


def select(metric: Metric, selector: str = "", **labels: str) -> str:
    """A vector selector; ``labels`` are matched by regular expression."""
    unknown = labels.keys() - {*metric.labels, "le"}
    if unknown:
        raise ValueError(f"{metric} has no label {sorted(unknown)}: the table of metrics lists {metric.labels}")
    matchers = [*([selector] if selector else []), *(f'{label}=~"{value}"' for label, value in labels.items())]
    return f"{metric}{{{', '.join(matchers)}}}" if matchers else str(metric)


def by_job(metric: Metric, selector: str, *keep: str, ago: str = "", **labels: str) -> str:
    """The newest value of a gauge, now or some time ago; one series per job (and per label in ``keep``)."""
    offset = f" offset {ago}" if ago else ""
    return f"max by ({', '.join((*LABELS, *keep))}) ({select(metric, selector, **labels)}{offset})"


def least(metric: Metric, selector: str = "") -> str:
    """The lowest value of a gauge over a job's pods."""
    return f"min by ({BY_JOB}) ({select(metric, selector)})"


def total(metric: Metric, selector: str, *keep: str, **labels: str) -> str:
    """The value a job's counter has reached: it is kept in the job's status and never begins anew, so no rate is needed."""
    assert metric.kind is Kind.COUNTER, metric
    return f"max by ({', '.join((*LABELS, *keep))}) ({select(metric, selector, **labels)})"


def rate(metric: Metric, selector: str = "", *, by: Iterable[str] = (), over: str = RATE, **labels: str) -> str:
    """Increase per second of a counter, summed."""
    assert metric.kind is Kind.COUNTER, metric
    return f"sum {_by(by)}(rate({select(metric, selector, **labels)}[{over}]))"


def increase(metric: Metric, selector: str = "", *, by: Iterable[str] = (), over: str = RANGE, **labels: str) -> str:
    """Increase of a counter over a time, summed."""
    assert metric.kind is Kind.COUNTER, metric
    return f"sum {_by(by)}(increase({select(metric, selector, **labels)}[{over}]))"


def quantile(share: float, metric: Metric, selector: str = "", over: str = RATE) -> str:
    """A quantile of a histogram."""
    assert metric.kind is Kind.HISTOGRAM, metric
    matchers = f"{{{selector}}}" if selector else ""
    return f"histogram_quantile({share:g}, sum by (le) (rate({metric}_bucket{matchers}[{over}])))"


def age(metric: Metric, selector: str) -> str:
    """Seconds since a moment."""
    assert metric.endswith("_timestamp_seconds"), metric
    return f"time() - {by_job(metric, selector)}"


def phase_code(selector: str, *keep: str) -> str:
    """The phase of each job as one series of numbers, see :data:`PHASE_CODES`."""
    parts = (f"({by_job(metrics.JOB_PHASE, selector, *keep, phase=phase.value)} * {code})" for phase, code in PHASE_CODES.items())
    return " or ".join(parts)


def duration(selector: str) -> str:
    """Seconds from a job's creation to its end, or until now."""
    created = by_job(metrics.JOB_CREATED, selector)
    return f"({by_job(metrics.JOB_FINISHED, selector)} or {created} * 0 + time()) - {created}"


def differences(selector: str) -> str:
    """What jobs are not all configured alike in: a series for each job and parameter, with labels ``of``, ``parameter`` and ``value``."""
    info = f"{metrics.JOB_INFO}{{{selector}}}"
    names = ", ".join(f'"{name}"' for name in LABELS)
    parts = []
    for label in metrics.CONFIG_LABELS:
        value = f'label_join({info}, "value", "", "{label}")'
        named = f'label_join({value}, "of", "/", {names})'
        title = label.replace("_", " ").capitalize()
        parts.append(
            f'max by (of, parameter, value) (label_replace({named}, "parameter", "{title}", "", "")) '
            f"and on () (count(count by ({label}) ({info})) > 1)"
        )
    return " or ".join(parts)


def _by(labels: Iterable[str]) -> str:
    names = ", ".join(labels)
    return f"by ({names}) " if names else ""
