"""The arguments all methods share, from the spec. Whatever decides about logs, saves and the end is off: the conductor decides."""

from __future__ import annotations

from typing import Any

from finetune_api.arguments import ArgumentValueError, read_arguments
from finetune_trainer.errors import configuration_error
from finetune_trainer.worker.backend import optimizer_name
from finetune_trainer.worker.precision import Formats
from finetune_trainer.worker.session import Session


def training_arguments(session: Session, formats: Formats, *, is_evaluated: bool) -> dict[str, Any]:
    """Return what all methods have in common: every argument that the spec or the conductor decides.

    TRL's configuration, made of them, needs the process group, if there is one, to be open already: it looks for it.
    """
    spec = session.spec
    training = spec.training
    restarts = {"num_cycles": training.lr_cosine_cycles} if training.lr_scheduler == "cosine_with_restarts" else None
    return {
        "output_dir": str(session.plan.output_dir),
        # What is computed.
        "seed": training.seed,
        "data_seed": training.seed,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.grad_accum_steps,
        "per_device_eval_batch_size": evaluation_batch(session),
        "max_steps": session.schedule.total_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler,
        "lr_scheduler_kwargs": restarts,
        "warmup_steps": session.schedule.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": optimizer_name(spec),
        "average_tokens_across_devices": True,
        # How it is computed.
        "use_cpu": spec.resources.device == "cpu",
        "bf16": formats.autocast == "bf16",
        "fp16": formats.autocast == "fp16",
        "tf32": True if formats.tf32 else None,
        "activation_checkpointing": training.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if training.gradient_checkpointing else None,
        "use_cache": False,
        # Every trained parameter takes part in every step; searching for others would cost a walk over the graph per step.
        "ddp_find_unused_parameters": False,
        "ddp_timeout": spec.distributed.timeout_seconds,
        **_off(is_evaluated=is_evaluated),
        **session.sharing.arguments(spec, formats),
    }


def with_extra_arguments(own: dict[str, Any], extra: dict[str, str] | None) -> dict[str, Any]:
    """Add what the job asks for by the library's own names (F-32); objects are merged into ours, so that theirs win entry by entry.

    Raises :class:`TrainerError` (ConfigurationError) for a text that is no value of its argument.
    """
    try:
        asked = read_arguments(extra)
    except ArgumentValueError as error:
        raise configuration_error(f"training.extraArgs: {error}") from error
    return own | {name: (own.get(name) or {}) | value if isinstance(value, dict) else value for name, value in asked.items()}


def evaluation_batch(session: Session) -> int:
    """Rows (answers, for grpo) per rank and evaluation step, rounded up to what the method can evaluate (F-31, LF-6)."""
    wanted = session.spec.evaluation.batch_size
    unit = session.pace.evaluation_unit
    return -(-wanted // unit) * unit


def _off(*, is_evaluated: bool) -> dict[str, Any]:
    return {
        "do_eval": is_evaluated,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "save_total_limit": None,
        "load_best_model_at_end": False,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }
