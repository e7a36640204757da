"""``preflight``: what can be known to fail before a GPU is taken: credentials, bucket, model, data, checkpoint to resume from."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finetune_api.contract import env
from finetune_api.contract.failures import EXIT_DONE, FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_api.exports import exports_of
from finetune_api.strategies import effective_strategy
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.outputs.families import check_gguf
from finetune_trainer.rewards import check_rewards
from finetune_trainer.sources.adapter_directory import check_remote_adapter
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.model_directory import CONFIG
from finetune_trainer.sources.remote_model import check_remote_model, check_remote_tokenizer, read_remote
from finetune_trainer.sources.resolve import fetch_json
from finetune_trainer.store.base import Store
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.store.probe import probe_store
from finetune_trainer.store.resume import plan_resume
from finetune_trainer.stored_quantization import check_mergeable, check_stored_quantization
from finetune_trainer.supervisor.attempt import read_pinned
from finetune_trainer.supervisor.companions import companion_models, fetch_reward_sources
from finetune_trainer.supervisor.environment import (
    PodEnvironment,
    Secrets,
    attached_source,
    job_secrets,
    job_store,
    model_source,
    source_context,
    tokenizer_source,
)
from finetune_trainer.supervisor.outcome import Outcome
from finetune_trainer.supervisor.restore import RejectedError, RestoreTarget, check_fits, read_manifest, restore_foreign
from finetune_trainer.verbs.answer import Answer, run_verb
from finetune_trainer.verbs.data_check import check_data
from finetune_trainer.verbs.disk_check import check_disk
from finetune_trainer.verbs.environment_check import check_environment
from finetune_trainer.verbs.findings import Findings
from finetune_trainer.verbs.length_check import check_length
from finetune_trainer.verbs.memory_check import check_memory, model_shape
from finetune_trainer.verbs.push import check_push
from finetune_trainer.verbs.token_check import check_token
from finetune_trainer.verbs.upload_check import check_upload
from finetune_trainer.vision import model_type

logger = logging.getLogger(__name__)
STORE_PATIENCE_SECONDS = 30.0
TOKENIZER = "tokenizer.json"
TRACKER_KEYS = {
    "wandb": (("WANDB_API_KEY",),),
    "mlflow": (("MLFLOW_TRACKING_TOKEN",), ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")),
}
"""Tracker -> sets of keys of which one has to be complete."""


@dataclass
class Checks:
    """Runs checks one after the other; each failure is kept, none hides another."""

    done: list[dict[str, object]] = field(default_factory=list)
    failures: list[TrainerError] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, check: Callable[[], dict[str, str]]) -> bool:
        """Run one check; it returns warnings or raises TrainerError. True: passed."""
        started = time.monotonic()
        try:
            self.warnings |= check()
        except TrainerError as error:
            logger.warning("%s: %s", name, error.message)
            self.failures.append(error)
            self.done.append({"check": name, "ok": False, "class": error.failure_class.value, "message": error.message[:300]})
            return False
        self.done.append({"check": name, "ok": True, "seconds": round(time.monotonic() - started, 2)})
        return True


def run_preflight(environment: PodEnvironment) -> int:
    """Check and answer; returns the exit code of the first failure."""
    return run_verb(environment, lambda config: examine(config, environment))


def examine(config: RunConfig, environment: PodEnvironment) -> Answer:
    """Run all checks. The first failure that no retry mends gives class and message, else the first one."""
    secrets, context = job_secrets(config, environment), source_context(config, environment)
    store = job_store(config, environment).with_patience(STORE_PATIENCE_SECONDS)
    checks = Checks()
    found = Findings()
    checks.run("environment", lambda: check_environment(config, found))
    checks.run("secrets", lambda: check_secrets(config, secrets))
    checks.run("token", lambda: check_token(config, context, found))
    is_stored = checks.run("store", lambda: check_store(store))
    has_model = checks.run("model", lambda: check_model_sources(config, secrets, context, store if is_stored else None))
    checks.run("method", lambda: check_method(config, secrets, context))
    checks.run("data", lambda: check_data(config, secrets, context, environment, found))
    if has_model and is_stored:
        checks.run("memory", lambda: check_memory(config, secrets, context, store, found))
    checks.run("length", lambda: check_length(config, found))
    if has_model:
        checks.run("disk", lambda: check_disk(config, secrets, context, found))
    if is_stored:
        checks.run("upload", lambda: check_upload(config, store, environment.work_dir, found))
    if exports_of(config.spec):
        checks.run("outputs", lambda: check_outputs(config, secrets, context, environment))
    if config.spec.checkpoint.resume_from is not None:
        checks.run("resumeFrom", lambda: check_resume(config, secrets, context, store, _restore_target(config, environment, store, found)))
    return _answer(checks, found.result())


def check_secrets(config: RunConfig, secrets: Secrets) -> dict[str, str]:
    """Named Secrets must hold the keys they are named for."""
    if config.spec.secrets.huggingface is not None and secrets.hub.read(env.HF_TOKEN_KEY) is None:
        raise TrainerError(
            FailureClass.HUGGING_FACE_AUTH,
            f"secrets.huggingface.secretRef: Secret {secrets.hub.name} does not exist or lacks the key {env.HF_TOKEN_KEY}.",
        )
    for tracker in config.spec.logging.trackers:
        directory = secrets.trackers.get(tracker.type)
        wanted = TRACKER_KEYS.get(tracker.type, ())
        if directory is not None and wanted and not any(all((directory / key).is_file() for key in keys) for keys in wanted):
            assert tracker.secret_ref is not None
            needed = " or ".join(" and ".join(keys) for keys in wanted)
            raise configuration_error(
                f"logging.trackers: Secret {tracker.secret_ref.name} of {tracker.type} does not exist or lacks {needed}."
            )
    return {}


def check_store(store: Store) -> dict[str, str]:
    """The job must be allowed to list, write, read and delete below its prefix."""
    return probe_store(store).warnings


def check_model_sources(config: RunConfig, secrets: Secrets, context: SourceContext, store: Store | None) -> dict[str, str]:
    """Model, tokenizer and PEFT config must be there and be what they should; ``store`` tells whether the job has run."""
    model = config.spec.model
    warnings = check_remote_model(model_source(config.spec, secrets), context, needs_tokenizer=model.tokenizer is None)
    other = tokenizer_source(config.spec, secrets)
    if other is not None:
        warnings = check_remote_tokenizer(other, context) | warnings
    document = read_remote(model_source(config.spec, secrets), context, CONFIG)
    if document is not None and config.spec.method is not None:
        model_type(config.spec, json.loads(document))
    if document is not None and not _has_way(store):
        check_stored_quantization(config.spec, json.loads(document))
    attached = attached_source(config.spec, secrets)
    if attached is not None:
        check_remote_adapter(attached, context, config.spec.builtin_method, model_shape(config, secrets, context))
    if config.spec.adapter.peft_config is not None:
        fetch_json(Source(config.spec.adapter.peft_config, "adapter.peftConfig", secrets.model, model.region), context)
    return warnings


def _has_way(store: Store | None) -> bool:
    """Whether strategy and quantisation are those of an earlier attempt."""
    pinned = read_pinned(store) if store is not None else None
    return pinned is not None and pinned.quantization is not None


def check_outputs(config: RunConfig, secrets: Secrets, context: SourceContext, environment: PodEnvironment) -> dict[str, str]:
    """What shall be made of the result must be possible: the architecture for GGUF, a base to merge into, the token for a push (X-03)."""
    wanted = exports_of(config.spec)
    base = model_source(config.spec, secrets)
    if config.spec.adapter.type == "lora" and {"merged", "gguf"} & set(wanted):
        document = read_remote(base, context, CONFIG)
        check_mergeable(json.loads(document) if document is not None else {})
    if "gguf" in wanted:
        words = tokenizer_source(config.spec, secrets) or base
        shape, tokenizer = read_remote(base, context, CONFIG), read_remote(words, context, TOKENIZER)
        if shape is not None:
            check_gguf(json.loads(shape), json.loads(tokenizer) if tokenizer is not None else None)
    if "push" in wanted:
        check_push(config, environment)
    return {}


def check_method(config: RunConfig, secrets: Secrets, context: SourceContext) -> dict[str, str]:
    """Models beside the trained one must be there, and reward functions must be ones that can be called."""
    spec = config.spec
    warnings: dict[str, str] = {}
    for role, uri in companion_models(spec):
        source = Source(uri, role, secrets.model, spec.model.region)
        warnings |= check_remote_model(source, context, needs_tokenizer=role == "grpo.rewardModel")
    if spec.grpo is not None:
        check_rewards(spec.grpo, fetch_reward_sources(spec, secrets.model, context))
    return warnings


def check_resume(config: RunConfig, secrets: Secrets, context: SourceContext, store: Store, target: RestoreTarget) -> dict[str, str]:
    """The checkpoint asked for must be complete and of use to this job (AC-08, R-10)."""
    checkpoint = config.spec.checkpoint
    candidates = plan_resume(read_ledger(store), resume_from=checkpoint.resume_from, auto_resume=checkpoint.auto_resume)
    for ref in candidates[:1]:
        try:
            if ref.uri is None:
                check_fits(read_manifest(store, ref)[0], target)
            else:
                source = Source(ref.uri, "checkpoint.resumeFrom", secrets.store, config.store.region)
                if restore_foreign(source, context, target).manifest is None:
                    return {"ForeignCheckpoint": f"{ref.uri} has no manifest: its files are there, whether they are whole is not known."}
        except RejectedError as error:
            if len(candidates) > 1:  # the run tries the one before it
                return {}
            name = ref.uri or f"checkpoint-{ref.step}"
            raise TrainerError(FailureClass.CHECKPOINT_INCOMPLETE, f"checkpoint.resumeFrom: {name} cannot be used: {error}.") from error
    return {}


def _restore_target(config: RunConfig, environment: PodEnvironment, store: Store, found: Findings) -> RestoreTarget:
    """All ranks of the job, with the strategy it will have."""
    spec, ranks = config.spec, config.topology.world_size
    pinned = read_pinned(store)
    decided = found.verdict.strategy if found.verdict is not None else pinned.strategy if pinned is not None else None
    strategy = effective_strategy(spec.distributed.strategy, decided, ranks)
    return RestoreTarget(spec, ranks, range(ranks), environment.work_dir / "resume", strategy)


def _answer(checks: Checks, found: dict[str, object]) -> Answer:
    result: dict[str, object] = {"checks": checks.done, **found, "warnings": checks.warnings}
    warnings = [f"{condition}: {text}" for condition, text in checks.warnings.items()]
    if not checks.failures:
        return Answer("data, credentials, bucket and model are in order", result, warnings=warnings)
    first = next((error for error in checks.failures if error.failure_class != FailureClass.STORAGE_UNAVAILABLE), checks.failures[0])
    others = len(checks.failures) - 1
    message = first.message + (f" ({others} more in the log)" if others else "")
    assert first.exit_code != EXIT_DONE
    return Answer(message, result, Outcome(first.exit_code, first.failure_class, message), warnings=warnings)
