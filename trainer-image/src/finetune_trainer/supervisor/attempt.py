"""Claiming an attempt, and the facts that later attempts must find again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import PINNED, AttemptRecord, CheckpointRef, Pinned
from finetune_api.strategies import is_same_strategy
from finetune_trainer.errors import configuration_error
from finetune_trainer.store.base import Store
from finetune_trainer.store.checkpoints import claim_attempt, timestamp
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.store.heartbeat import newest_heartbeat
from finetune_trainer.store.ledger import Ledger, read_ledger
from finetune_trainer.store.resume import LATEST, has_new_wish, plan_resume
from finetune_trainer.supervisor.environment import PodEnvironment

logger = logging.getLogger(__name__)
FACT_NAMES: Mapping[str, str] = {
    "model_revision": "the model's revision (model.uri)",
    "tokenizer_digest": "the tokenizer's files",
    "dataset_digest": "the contents of the dataset (dataset.uri, dataset.evalUri)",
    "prepared_key": "the prepared rows",
    "dtype": "the number format (precision)",
    "strategy": "the distribution strategy (distributed.strategy)",
    "quantization": "the base model's format (quantization.mode)",
    "global_batch": "the global batch (training.batchSize x gradAccumSteps x ranks)",
    "image": "the trainer image (resources.image)",
}


class Claim:
    """A claimed attempt and what it may start from."""

    def __init__(self, record: AttemptRecord, ledger: Ledger, candidates: tuple[CheckpointRef, ...], *, is_wish: bool) -> None:
        self.record = record
        self.ledger = ledger
        self.candidates = candidates
        """Checkpoints to try, best first; empty = from scratch."""
        self.is_wish = is_wish
        """The one candidate was asked for by name: it is used or the job is refused."""

    @property
    def starts_anew(self) -> bool:
        """A wish to begin from scratch: nothing of earlier attempts binds it."""
        return self.is_wish and not self.candidates


def claim_next_attempt(store: Store, config: RunConfig, environment: PodEnvironment) -> Claim:
    """Claim the next number with the checkpoint to start from; reads the store anew when somebody else was faster."""
    wish, auto_resume = config.spec.checkpoint.resume_from, config.spec.checkpoint.auto_resume
    while True:
        ledger = read_ledger(store)
        candidates = plan_resume(ledger, resume_from=wish, auto_resume=auto_resume)
        is_wish = has_new_wish(ledger, wish) or (not auto_resume and wish not in (None, LATEST))
        if config.spec.retry.on_divergence == "rewind" and not is_wish:
            candidates = _before_a_rise(store, ledger, candidates)
        record = AttemptRecord(
            contract_version=CONTRACT_VERSION,
            attempt=ledger.newest_attempt + 1,
            run=config.run,
            pod_uid=environment.pod_uid,
            pod_name=environment.pod_name,
            node=environment.node_name,
            image=environment.image,
            started_at=timestamp(datetime.now(UTC)),
            parent=candidates[0] if candidates else None,
            resume_from=wish,
            world_size=config.topology.world_size,
        )
        if claim_attempt(store, record):
            logger.info("claimed attempt %s", record.attempt)
            return Claim(record, ledger, candidates, is_wish=is_wish)


def _before_a_rise(store: Store, ledger: Ledger, candidates: tuple[CheckpointRef, ...]) -> tuple[CheckpointRef, ...]:
    """Leave out the checkpoints that a loss which has diverged had begun to rise before; where a job began elsewhere stays."""
    last = newest_heartbeat(store, ledger.attempts)
    if last is None or last.diverged_step is None or last.steady_until is None:
        return candidates
    return tuple(ref for ref in candidates if ref.uri is not None or ref.step <= last.steady_until)


def read_pinned(store: Store) -> Pinned | None:
    """Facts an earlier attempt froze."""
    try:
        return Pinned.model_validate_json(store.get(PINNED))
    except ObjectNotFoundError:
        return None
    except ValidationError as error:
        raise configuration_error(f"{store.url(PINNED)} is not readable: {error.errors()[0]['msg']}.") from error


def freeze(store: Store, pinned: Pinned, *, replace: bool) -> None:
    """Store the facts of a first attempt; ``replace`` when a wish to start anew made the old ones void."""
    data = pinned.to_json().encode()
    if replace:
        store.put(PINNED, data)
    elif not store.create(PINNED, data):
        stored = read_pinned(store)
        if stored is not None:
            check_pinned(stored, pinned)


def merge_pinned(known: Pinned, found: Pinned) -> Pinned:
    """Facts known here, completed by those found elsewhere."""
    found_fields = found.model_dump(exclude_none=True, exclude={"contract_version"})
    return known.model_copy(update={name: value for name, value in found_fields.items() if value})


def check_pinned(stored: Pinned, found: Pinned) -> None:
    """Refuse a start under other facts than the first attempt's; raises TrainerError (ConfigurationError) that names the fact."""
    for name, text in FACT_NAMES.items():
        before, now = getattr(stored, name), getattr(found, name)
        if before is not None and now is not None and before != now and not (name == "strategy" and is_same_strategy(before, now)):
            raise configuration_error(_refusal(text, before, now))
    for path in sorted(stored.companions.keys() & found.companions.keys()):
        if stored.companions[path] != found.companions[path]:
            raise configuration_error(_refusal(f"the revision of {path}", stored.companions[path], found.companions[path]))
    for library in sorted(stored.versions.keys() & found.versions.keys()):
        if stored.versions[library] != found.versions[library]:
            raise configuration_error(
                _refusal(
                    f"the version of {library} (set resources.image to the first attempt's image)",
                    stored.versions[library],
                    found.versions[library],
                )
            )


def _refusal(fact: str, before: object, now: object) -> str:
    return (
        f"This run began with {before} as {fact}; now it is {now}: going on would not be the same training. Restore it, or start anew with "
        f"checkpoint.resumeFrom: none or as a new job."
    )
