"""One job, once around: observe → plan → apply → status → events."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from finetune_operator.cluster.apply import ExistsError, RefusedError, apply, write_status
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import ConflictError, NamespaceTerminatingError, NotLeaderError, OverloadedError
from finetune_operator.cluster.events import EventWriter
from finetune_operator.cluster.observe import Circumstances, JobKey, observe, observe_job
from finetune_operator.plan.decide import plan
from finetune_operator.plan.decision import Plan
from finetune_operator.plan.observed import JobObject
from finetune_operator.plan.rest import is_settled
from finetune_operator.plan.retention import rests_for
from finetune_operator.queue import RetryLater
from finetune_operator.settings import PlanSettings

log = logging.getLogger(__name__)

CONFLICT_SECONDS = 0.1
"""The object changed while it was worked on: look again at once."""
NEVER = -1.0


class CaPublication(Protocol):
    """Brings the CA of the progress endpoint to namespaces."""

    async def publish(self, namespace: str) -> None:
        """A run is about to be made there: raises :class:`finetune_operator.cluster.errors.ApiError`."""

    async def keep(self, namespace: str) -> None:
        """A run is there, whoever made it; what fails is tried again at the next look."""


class Reconciler:
    """Brings the cluster to what a job wants, as far as one look goes."""

    def __init__(
        self,
        client: Client,
        events: EventWriter,
        *,
        ca: CaPublication,
        settings: PlanSettings,
        now: Callable[[], datetime],
        forget: Callable[[JobKey], None] = lambda _key: None,
    ) -> None:
        self._client = client
        self._events = events
        self._ca = ca
        self._settings = settings
        self._now = now
        self._forget = forget

    async def reconcile(self, key: JobKey) -> float | None:
        """Look at a job once. Returns the seconds to the next look; None: when something happens; :data:`NEVER`: it is settled."""
        return await at_a_good_moment(self._once(key), {"job": str(key)})

    async def _once(self, key: JobKey) -> float | None:
        job = await observe_job(self._client, key)
        if job is None:
            self._forget(key)
            return NEVER
        known = Circumstances(cluster_reads=self._settings.cluster_reads)
        try:
            return await self._act(job, known)
        except ExistsError:
            return await self._act(job, replace(known, thorough=True))
        except NamespaceTerminatingError:
            return await self._act(job, replace(known, namespace_terminating=True))
        except RefusedError as error:
            return await self._act(job, replace(known, refusal=str(error)))

    async def _act(self, job: JobObject, known: Circumstances) -> float | None:
        if is_settled(job):
            return NEVER
        if (seconds := rests_for(job, self._now())) is not None:
            return seconds
        observed = await observe(self._client, job, known)
        if observed.workload is not None and not known.namespace_terminating:
            await self._ca.keep(job.namespace)
        decision = plan(observed, now=self._now(), settings=self._settings)
        await self._carry_out(observed.job, decision)
        return decision.wake_seconds

    async def _carry_out(self, job: JobObject, decision: Plan) -> None:
        """Operations, then the status, then what is to be told of it."""
        for operation in decision.operations:
            await apply(self._client, job, operation, self._ca.publish)
        if job.deleted_at is None:
            await write_status(self._client, job, decision.status)
        for event in decision.events:
            self._events.write(job, event)


async def at_a_good_moment(look: Awaitable[float | None], whose: Mapping[str, str]) -> float | None:
    """What a look says; one that came at a bad moment is taken again later, or by the leader."""
    try:
        return await look
    except ConflictError as error:
        log.debug("conflict", extra={**whose, "error": str(error)})
        raise RetryLater(CONFLICT_SECONDS) from error
    except OverloadedError as error:
        raise RetryLater(error.retry_after) from error
    except NotLeaderError:
        log.info("not the leader any more; nothing written", extra=whose)
        return NEVER
