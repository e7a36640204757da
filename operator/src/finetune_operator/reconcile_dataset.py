"""One Dataset, once around: observe → plan → apply → status → events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from finetune_operator.cluster.apply import ExistsError, apply
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.datasets import DatasetKey, observe_dataset, write_dataset_status
from finetune_operator.cluster.errors import ForbiddenError, InvalidError, NamespaceTerminatingError, TakenError
from finetune_operator.cluster.events import EventWriter
from finetune_operator.plan.dataset import plan_dataset
from finetune_operator.plan.dataset_objects import DatasetObserved
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile import NEVER, at_a_good_moment
from finetune_operator.settings import PlanSettings

EXISTS_SECONDS = 1.0
"""A look's Job was made from other values by a process that ended before it could note it: the next look at it tells."""


class DatasetReconciler:
    """Brings the status of Datasets to what their data is, as far as one look goes."""

    def __init__(
        self,
        client: Client,
        events: EventWriter,
        *,
        settings: PlanSettings,
        now: Callable[[], datetime],
        forget: Callable[[DatasetKey], None] = lambda _key: None,
    ) -> None:
        self._client = client
        self._events = events
        self._settings = settings
        self._now = now
        self._forget = forget

    async def reconcile(self, key: DatasetKey) -> float | None:
        """Look at a Dataset once. Returns the seconds to the next look, or :data:`NEVER`: only when something happens."""
        try:
            return await at_a_good_moment(self._once(key), {"dataset": str(key)})
        except ExistsError as error:
            raise RetryLater(EXISTS_SECONDS) from error

    async def _once(self, key: DatasetKey) -> float | None:
        observed = await observe_dataset(self._client, key)
        if observed is None:
            self._forget(key)
            return NEVER
        try:
            return await self._act(observed)
        except NamespaceTerminatingError:
            return await self._act(replace(observed, namespace_terminating=True))
        except (InvalidError, ForbiddenError) as error:
            return await self._act(replace(observed, refusal=error.message))
        except TakenError as error:
            return await self._act(replace(observed, refusal=str(error)))

    async def _act(self, observed: DatasetObserved) -> float | None:
        dataset = observed.dataset
        decision = plan_dataset(observed, now=self._now(), settings=self._settings)
        for operation in decision.operations:
            await apply(self._client, dataset, operation, _no_ca)
        if dataset.deleted_at is None:
            await write_dataset_status(self._client, dataset, decision.status)
        for event in decision.events:
            self._events.write(dataset, event)
        if decision.wake_seconds is not None:
            return decision.wake_seconds
        return None if observed.look is not None or decision.operations else NEVER


async def _no_ca(namespace: str) -> None:
    """A look posts no progress: it needs no CA."""
    raise AssertionError(f"no plan of a Dataset publishes a CA in {namespace}")
