"""The operator itself: is it there, does it keep up, is the API server well."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from finetune_api.contract import metrics as m
from finetune_monitoring import panels as p
from finetune_monitoring.dashboards.frame import frame, row
from finetune_monitoring.panels import Box, Query, Text
from finetune_monitoring.queries import ONE_OPERATOR, quantile, rate, select
from finetune_monitoring.variables import datasource, values

SMALL: Final = Box(4, 4)
THIRD: Final = Box(8)
REPLICA: Final = "{{instance}}"


def build() -> Dashboard:
    """The dashboard."""
    dashboard = frame("finetune-operator", "FineTune / Operator", "The fine-tuning operator", since="6h")
    dashboard = (
        dashboard.with_variable(datasource())
        .with_variable(values("job", "Job", f"label_values({m.OPERATOR_INFO}, job)", many=True))
        .with_variable(values("instance", "Instance", f'label_values({m.OPERATOR_INFO}{{job=~"$job"}}, instance)', many=True))
    )
    for add in (state, work, api, progress):
        dashboard = add(dashboard)
    return dashboard


def state(dashboard: Dashboard) -> Dashboard:
    """Whether it is there."""
    errors = f"{rate(m.RECONCILES, ONE_OPERATOR, result='error')} / {rate(m.RECONCILES, ONE_OPERATOR)}"
    return row(
        dashboard,
        "State",
        p.number(Text("Replicas", "That answer"), SMALL, "none", Query(f"count({select(m.OPERATOR_INFO, ONE_OPERATOR)})")),
        p.number(Text("Leaders", "Must be one"), SMALL, "none", Query(f"sum({select(m.LEADER, ONE_OPERATOR)})")),
        p.number(Text("Jobs known", "FineTuneJobs the watch knows of"), SMALL, "none", Query(f"max({select(m.JOBS_KNOWN, ONE_OPERATOR)})")),
        p.alarm(
            Text("Failed looks", "Share of the looks at jobs that ended in an error"),
            SMALL,
            "percentunit",
            Query(errors),
            orange=0.01,
            red=0.1,
        ),
        p.alarm(
            Text("Longest wait", "Of a job that is due to be looked at"),
            SMALL,
            "s",
            Query(f"max({select(m.QUEUE_OLDEST, ONE_OPERATOR)})"),
            orange=10,
            red=60,
        ),
        p.alarm(
            Text("Oldest numbers", "Progress that is not in a status yet"),
            SMALL,
            "s",
            Query(f"max({select(m.PROGRESS_OLDEST, ONE_OPERATOR)})"),
            orange=15,
            red=60,
        ),
    )


def work(dashboard: Dashboard) -> Dashboard:
    """Looks at jobs."""
    return row(
        dashboard,
        "Work",
        p.series(
            Text("Looks at jobs", "By result: ok, again (asked to come back), error"),
            THIRD,
            "ops",
            Query(rate(m.RECONCILES, ONE_OPERATOR, by=("result",)), "{{result}}"),
            stacked=True,
        ),
        p.series(
            Text("Duration of a look", "Reads, decision and writes"),
            THIRD,
            "s",
            *(Query(quantile(share, m.RECONCILE_DURATION, ONE_OPERATOR), f"p{share * 100:g}") for share in (0.5, 0.99)),
        ),
        p.series(Text("Queue", "Jobs that are due and wait"), THIRD, "short", Query(select(m.QUEUE_DEPTH, ONE_OPERATOR), REPLICA)),
    )


def api(dashboard: Dashboard) -> Dashboard:
    """What it asks of the API server, and what it costs."""
    return row(
        dashboard,
        "API server and resources",
        p.series(
            Text("Requests", "To the API server, by verb"),
            THIRD,
            "reqps",
            Query(rate(m.API_REQUESTS, ONE_OPERATOR, by=("verb",)), "{{verb}}"),
            stacked=True,
        ),
        p.series(
            Text("Answers other than 2xx", "404 and 409 are part of its work; 0 means no answer"),
            THIRD,
            "reqps",
            Query(f"{rate(m.API_REQUESTS, ONE_OPERATOR, by=('code',), code='[^2].*')} or vector(0)", "{{code}}"),
        ),
        p.series(
            Text("Watch events", "By resource"),
            THIRD,
            "ops",
            Query(rate(m.WATCH_EVENTS, ONE_OPERATOR, by=("resource",)), "{{resource}}"),
            stacked=True,
        ),
        p.series(
            Text("Processor time", "Cores in use"),
            THIRD,
            "short",
            Query(f"rate(process_cpu_seconds_total{{{ONE_OPERATOR}}}[$__rate_interval])", REPLICA),
        ),
        p.series(Text("Memory", "Resident"), THIRD, "bytes", Query(f"process_resident_memory_bytes{{{ONE_OPERATOR}}}", REPLICA)),
        p.series(
            Text("Webhook", "Events it was told of: sent, refused, unreachable, dropped"),
            THIRD,
            "ops",
            Query(f"{rate(m.NOTIFICATIONS, ONE_OPERATOR, by=('delivery',))} or vector(0)", "{{delivery}}"),
            stacked=True,
        ),
    )


def progress(dashboard: Dashboard) -> Dashboard:
    """What trainers report."""
    return row(
        dashboard,
        "Progress of trainers",
        p.series(
            Text("Posts", "By status code: 409 ends a superseded attempt, 429 and 503 are tried again"),
            THIRD,
            "reqps",
            Query(rate(m.PROGRESS_POSTS, ONE_OPERATOR, by=("code",)), "{{code}}"),
            stacked=True,
        ),
        p.series(
            Text("Duration of a post", "With storing what is urgent"),
            THIRD,
            "s",
            *(Query(quantile(share, m.PROGRESS_POST_DURATION, ONE_OPERATOR), f"p{share * 100:g}") for share in (0.5, 0.99)),
        ),
        p.series(
            Text("Not stored yet", "Jobs whose newest numbers wait for their status write"),
            THIRD,
            "short",
            Query(select(m.PROGRESS_PENDING, ONE_OPERATOR), REPLICA),
        ),
    )
