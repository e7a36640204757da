"""``training.extraArgs``: which arguments of TRL and transformers a job may set beside the fields, and what to use in place of the others.

Every argument of the library is in exactly one of the two tables (a test compares them with the library): either it takes effect in the
trainer as it is, or it is refused with what to use instead. None is accepted and then not heeded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from finetune_api.problems import Problem, show

Kind = Literal["boolean", "integer", "number", "text", "object"]
PATH: Final = "training.extraArgs"


class Argument(NamedTuple):
    """An argument a job may set."""

    kind: Kind
    methods: tuple[str, ...] = ()
    """Methods that know it; none = all."""


ACCEPTED: Final[Mapping[str, Argument]] = {
    "activation_checkpointing_kwargs": Argument("object"),
    "adam_beta1": Argument("number"),
    "adam_beta2": Argument("number"),
    "adam_epsilon": Argument("number"),
    "ddp_broadcast_buffers": Argument("boolean"),
    "ddp_bucket_cap_mb": Argument("integer"),
    "ddp_find_unused_parameters": Argument("boolean"),
    "ddp_static_graph": Argument("boolean"),
    "full_determinism": Argument("boolean"),
    "neftune_noise_alpha": Argument("number"),
    "optim_args": Argument("text"),
    "pad_to_multiple_of": Argument("integer", ("sft",)),
    "router_aux_loss_coef": Argument("number", ("sft",)),
    "torch_compile": Argument("boolean"),
    "torch_compile_backend": Argument("text"),
    "torch_compile_mode": Argument("text"),
    "torch_empty_cache_steps": Argument("integer"),
}
"""Arguments that take effect as they are."""

_CHECKPOINT, _LOGGING, _EVALUATION = "the checkpoint block", "the logging block", "the evaluation block"
_OUTPUT, _PREPARED = "the output block", "the dataset block; rows are prepared before training"
_NO_FIELD = "leave it out: the trainer decides it"
REFUSED: Final[Mapping[str, str]] = {
    "accelerator_config": "the distributed block",
    "activation_checkpointing": "training.gradientCheckpointing",
    "activation_offloading": "training.gradientCheckpointing, or distributed.strategy zero3_offload",
    "assistant_only_loss": _PREPARED,
    "auto_find_batch_size": "training.batchSize; another one in mid-run would change the training",
    "average_tokens_across_devices": _NO_FIELD,
    "batch_eval_metrics": _EVALUATION,
    "bf16": "precision.bf16",
    "bf16_full_eval": "precision.bf16",
    "chat_template_path": _PREPARED,
    "completion_only_loss": _PREPARED,
    "data_seed": "training.seed",
    "dataloader_drop_last": _NO_FIELD,
    "dataloader_in_order": _NO_FIELD,
    "dataloader_multiprocessing_context": _NO_FIELD,
    "dataloader_num_workers": "dataset.numWorkers",
    "dataloader_persistent_workers": "dataset.numWorkers",
    "dataloader_pin_memory": "dataset.pinMemory",
    "dataloader_prefetch_factor": "dataset.numWorkers",
    "dataset_kwargs": _PREPARED,
    "dataset_num_proc": _PREPARED,
    "dataset_text_field": "dataset.format and dataset.promptColumn",
    "ddp_backend": "resources.device",
    "ddp_timeout": "distributed.timeoutSeconds",
    "debug": _NO_FIELD,
    "deepspeed": "distributed.strategy zero1 to zero3_offload",
    "disable_tqdm": _LOGGING,
    "do_eval": "evaluation.strategy",
    "do_predict": "evaluation.final",
    "do_train": _NO_FIELD,
    "enable_jit_checkpoint": "suspend; every pause, drain and preemption saves already",
    "eos_token": "model.tokenizer",
    "eval_accumulation_steps": _EVALUATION,
    "eval_delay": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_on_start": _EVALUATION,
    "eval_packing": "dataset.packing",
    "eval_steps": "evaluation.steps",
    "eval_strategy": "evaluation.strategy",
    "eval_use_gather_object": _EVALUATION,
    "fp16": "precision.fp16",
    "fp16_full_eval": "precision.fp16",
    "fsdp": "distributed.strategy fsdp",
    "fsdp_config": "distributed.strategy fsdp",
    "gradient_accumulation_steps": "training.gradAccumSteps",
    "gradient_checkpointing": "training.gradientCheckpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs, its present name",
    "greater_is_better": "output.use",
    "hub_always_push": _OUTPUT,
    "hub_model_id": _OUTPUT,
    "hub_private_repo": _OUTPUT,
    "hub_revision": _OUTPUT,
    "hub_strategy": _OUTPUT,
    "hub_token": "secrets.huggingface",
    "ignore_data_skip": "leave it out: a resumed run would train rows twice",
    "include_for_metrics": _EVALUATION,
    "include_num_input_tokens_seen": "leave it out: tokens are counted at every step",
    "label_names": _PREPARED,
    "label_smoothing_factor": "leave it out: the loss is computed per token from TRL's fused head, which has none",
    "learning_rate": "training.learningRate",
    "length_column_name": _PREPARED,
    "liger_kernel_config": _NO_FIELD,
    "load_best_model_at_end": "output.use",
    "local_rank": _NO_FIELD,
    "log_level": "logging.level",
    "log_level_replica": "logging.level",
    "log_on_each_node": _LOGGING,
    "logging_first_step": _LOGGING,
    "logging_nan_inf_filter": "leave it out: a loss that is not finite ends the run",
    "logging_steps": "logging.steps",
    "logging_strategy": _LOGGING,
    "loss_type": _NO_FIELD,
    "lr_scheduler_kwargs": "training.lrCosineCycles",
    "lr_scheduler_type": "training.lrScheduler",
    "max_grad_norm": "training.maxGradNorm",
    "max_length": "training.maxSeqLength",
    "max_steps": "training.maxSteps",
    "metric_for_best_model": "output.use",
    "model_init_kwargs": "the model and precision blocks",
    "num_train_epochs": "training.epochs",
    "optim": "training.optimizer",
    "optim_target_modules": "training.optimizer; none of its choices takes target modules",
    "output_dir": "output.uri",
    "packing": "dataset.packing",
    "packing_strategy": "dataset.packing",
    "pad_token": "model.tokenizer",
    "padding_free": "dataset.packing",
    "parallelism_config": "distributed.strategy",
    "per_device_eval_batch_size": "evaluation.batchSize",
    "per_device_train_batch_size": "training.batchSize",
    "prediction_loss_only": _EVALUATION,
    "project": "logging.trackers",
    "push_to_hub": _OUTPUT,
    "remove_unused_columns": _PREPARED,
    "report_to": "logging.trackers",
    "restore_callback_states_from_checkpoint": "leave it out: early stopping is always restored",
    "resume_from_checkpoint": "checkpoint.resumeFrom",
    "run_name": "logging.trackers",
    "save_on_each_node": _CHECKPOINT,
    "save_only_model": "checkpoint.keepLast; beyond it weights alone are kept",
    "save_steps": "checkpoint.steps",
    "save_strategy": "checkpoint.strategy",
    "save_total_limit": "checkpoint.keepLast",
    "seed": "training.seed",
    "shuffle_dataset": "dataset.reshuffle",
    "skip_memory_metrics": _LOGGING,
    "tf32": "precision.tf32",
    "trackio_bucket_id": "logging.trackers",
    "trackio_space_id": "logging.trackers",
    "trackio_static_space_id": "logging.trackers",
    "train_sampling_strategy": "dataset.reshuffle",
    "truncation_mode": "dataset.promptMaxLength and dataset.contentMaxLength",
    "trust_remote_code": "the model block",
    "use_cache": _NO_FIELD,
    "use_cpu": "resources.device",
    "use_liger_kernel": _NO_FIELD,
    "warmup_steps": "training.warmupSteps or training.warmupRatio",
    "weight_decay": "training.weightDecay",
}
"""Arguments with a field of their own, and those that would break what a run promises: what to use in their place."""


class ArgumentValueError(ValueError):
    """A text that is no value of its argument."""


def read_arguments(written: Mapping[str, str] | None) -> dict[str, Any]:
    """Turn the texts of ``training.extraArgs`` into the library's values.

    Raises :class:`ArgumentValueError` that names argument, text and what was expected.
    """
    return {name: read_value(name, text) for name, text in (written or {}).items()}


def read_value(name: str, text: str) -> Any:
    """Turn one text into the value of an accepted argument. Raises :class:`ArgumentValueError`."""
    kind = ACCEPTED[name].kind
    if kind == "text":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not _FITS[kind](value):
        raise ArgumentValueError(f"{name}: {show(text)} should be {_EXPECTED[kind]}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: Mapping[Kind, Callable[[object], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
}
_EXPECTED: Mapping[Kind, str] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": 'an object in JSON, such as {"a": 1}',
}


def explain(written: Mapping[str, str]) -> str:
    """Say for each name that is not accepted what to write instead."""
    return "; ".join(_explain(name) for name in written if name not in ACCEPTED)


def _explain(name: str) -> str:
    if name in REFUSED:
        instead = REFUSED[name]
        return f"{name} is not accepted, {instead if instead.startswith('leave it out') else f'use {instead}'}"
    close = difflib.get_close_matches(name, [*ACCEPTED, *REFUSED], n=1, cutoff=0.6)
    return f"{name} is no argument of TRL or transformers" + (
        f"; did you mean {close[0]}?" if close else f"; known are {', '.join(ACCEPTED)}"
    )


def argument_problems(written: Mapping[str, str] | None, method: str) -> list[Problem]:
    """What is wrong with the values, and with names that another method has; names nobody knows are a rule's part."""
    problems = []
    for name, text in (written or {}).items():
        argument = ACCEPTED.get(name)
        if argument is None:
            continue
        if argument.methods and method not in argument.methods:
            problems.append(Problem(f"spec.{PATH}.{name}", text, f"is an argument of {', '.join(argument.methods)}, not of {method}"))
            continue
        try:
            read_value(name, text)
        except ArgumentValueError as error:
            problems.append(Problem(f"spec.{PATH}.{name}", text, str(error).partition(": ")[2]))
    return problems
