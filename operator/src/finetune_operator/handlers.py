"""kopf as the shell: it logs in and watches. Handlers hand on what they get; nothing is decided and nothing written here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import kopf

from finetune_api.constants import BUDGET_PLURAL, DATASET_PLURAL, GROUP, LABEL_JOB, PLURAL, VERSION
from finetune_operator.cluster.resources import JOBS, PODS
from finetune_operator.feed import JobFeed
from finetune_operator.feed_budgets import BudgetFeed
from finetune_operator.feed_datasets import DatasetFeed

WATCH_SECONDS = 290
"""Whole seconds (the API server parses an integer). Watches are renewed before proxies forget them, and so spread over API servers."""
LIST_CHUNK = 500

OnEvent = Callable[[str, str], None]
"""Told of each event: resource, type."""


class NoDifferences(kopf.AnnotationsDiffBaseStorage):
    """Keeps nothing of an object to compare it with later.

    kopf copies every object of every event for handlers of changes, of which there are none here: most of an operator's processor time
    when many jobs are created at once.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing."""
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> None:
        """Nothing."""


def build_registry(
    feed: JobFeed, datasets: DatasetFeed, budgets: BudgetFeed, on_event: OnEvent, *, silence_seconds: float
) -> kopf.OperatorRegistry:
    """The feeds: FineTuneJobs, Datasets, Budgets, and the Jobs and pods that carry our label.

    ``silence_seconds``: a watch that says nothing for this long is begun again.
    """
    registry = kopf.OperatorRegistry()
    # Coroutines: kopf sends plain functions to a thread and back, for each event.

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        """The pod's service account, else the kubeconfig; called again when a token is refused."""
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        """Watch only, and only what is ours."""
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.server_timeout = WATCH_SECONDS
        settings.watching.inactivity_timeout = silence_seconds
        settings.watching.chunk_size = LIST_CHUNK
        settings.watching.label_selectors[JOBS.group, JOBS.version, JOBS.plural] = LABEL_JOB
        settings.watching.label_selectors["", PODS.version, PODS.plural] = LABEL_JOB
        settings.queueing.idle_timeout = 1.0
        settings.persistence.diffbase_storage = NoDifferences()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(PLURAL, str(event["type"]))
        feed.job_event(event["type"], dict(event["object"]))
        budgets.job_event(event["type"], dict(event["object"]))

    @kopf.on.event(GROUP, VERSION, DATASET_PLURAL, registry=registry)
    async def dataset_changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(DATASET_PLURAL, str(event["type"]))
        datasets.dataset_event(event["type"], dict(event["object"]))

    @kopf.on.event(GROUP, VERSION, BUDGET_PLURAL, registry=registry)
    async def budget_changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(BUDGET_PLURAL, str(event["type"]))
        budgets.budget_event(event["type"], dict(event["object"]))

    @kopf.on.event(JOBS.group, JOBS.version, JOBS.plural, registry=registry)
    async def workload_changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(JOBS.plural, str(event["type"]))
        feed.child_event(dict(event["object"]))
        datasets.child_event(dict(event["object"]))

    @kopf.on.event("", PODS.version, PODS.plural, registry=registry)
    async def pod_changed(event: kopf.RawEvent, **_: Any) -> None:
        on_event(PODS.plural, str(event["type"]))
        feed.child_event(dict(event["object"]))
        datasets.child_event(dict(event["object"]))

    return registry
