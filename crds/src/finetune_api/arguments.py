"""``training.extraArgs``: which arguments of TRL and transformers a job may set beside the fields, and what to use in place of the others.

Every argument of each method's configuration is in exactly one of the two tables (a test compares them with the library): either it takes
effect in the trainer as it is, or it is refused with what to use instead. None is accepted and then not heeded.
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
    choices: tuple[str, ...] = ()
    """Texts that it may be; none = any."""


_GRPO, _DPO = ("grpo",), ("dpo",)


ACCEPTED: Final[Mapping[str, Argument]] = {
    "activation_checkpointing_kwargs": Argument("object"),
    "adam_beta1": Argument("number"),
    "adam_beta2": Argument("number"),
    "adam_epsilon": Argument("number"),
    "ddp_broadcast_buffers": Argument("boolean"),
    "ddp_bucket_cap_mb": Argument("integer"),
    "ddp_find_unused_parameters": Argument("boolean"),
    "ddp_static_graph": Argument("boolean"),
    "delta": Argument("number", _GRPO),
    "entropy_coef": Argument("number", _GRPO),
    "epsilon_high": Argument("number", _GRPO),
    "f_alpha_divergence_coef": Argument("number", _DPO),
    "f_divergence_type": Argument("text", _DPO, ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")),
    "full_determinism": Argument("boolean"),
    "importance_sampling_level": Argument("text", _GRPO, ("token", "sequence")),
    "ld_alpha": Argument("number", _DPO),
    "mask_truncated_completions": Argument("boolean", _GRPO),
    "min_p": Argument("number", _GRPO),
    "multi_objective_aggregation": Argument("text", _GRPO, ("sum_then_normalize", "normalize_then_sum")),
    "neftune_noise_alpha": Argument("number"),
    "off_policy_mask_threshold": Argument("number", _GRPO),
    "optim_args": Argument("text"),
    "pad_to_multiple_of": Argument("integer"),
    "repetition_penalty": Argument("number", _GRPO),
    "router_aux_loss_coef": Argument("number", ("sft", "pretrain", "dpo", "kto", "grpo")),
    "top_entropy_quantile": Argument("number", _GRPO),
    "torch_compile": Argument("boolean"),
    "torch_compile_backend": Argument("text"),
    "torch_compile_mode": Argument("text"),
    "torch_empty_cache_steps": Argument("integer"),
    "use_bias_correction_kl": Argument("boolean", _GRPO),
    "use_weighting": Argument("boolean", _DPO),
}
"""Arguments that take effect as they are."""

_CHECKPOINT, _LOGGING, _EVALUATION = "the checkpoint block", "the logging block", "the evaluation block"
_OUTPUT, _PREPARED = "the output block", "the dataset block; rows are prepared before training"
_NO_FIELD = "leave it out: the trainer decides it"
_ADAPTIVE = "entropy_coef; one that adapts itself would not be in checkpoints"
_MOVING = "dpo.referenceModel, kto.referenceModel or grpo.referenceModel; a reference that moves would not be in checkpoints"
_PRECOMPUTED = "leave it out: rows come in the order of the run, and the reference is computed with each of them"
_VLLM = "grpo.maxNumSeqs for faster generation; the trainer's own model generates, there is no vLLM in the image"
_BATCHED = "grpo.maxNumSeqs for faster generation; the trainer generates without continuous batching"
_NO_LOSS = "grpo.lossType; the losses that read it are not among its choices"
_COMPLETIONS = "leave it out: generated answers are not logged"
REFUSED: Final[Mapping[str, str]] = {
    "accelerator_config": "the distributed block",
    "activation_checkpointing": "training.gradientCheckpointing",
    "activation_offloading": "training.gradientCheckpointing, or distributed.strategy zero3_offload",
    "assistant_only_loss": _PREPARED,
    "auto_find_batch_size": "training.batchSize; another one in mid-run would change the training",
    "average_tokens_across_devices": _NO_FIELD,
    "batch_eval_metrics": _EVALUATION,
    "beta": "dpo.beta, kto.beta or grpo.beta",
    "bf16": "precision.bf16",
    "bf16_full_eval": "precision.bf16",
    "cache_implementation": "grpo.enforceEager",
    "cast_lm_head_to_fp32": "the precision block",
    "center_rewards_coefficient": "reward.centerRewardsCoefficient",
    "chat_template_kwargs": _PREPARED,
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
    "desirable_weight": "kto.desirableWeight",
    "disable_dropout": "adapter.dropout",
    "disable_tqdm": _LOGGING,
    "discopop_tau": "dpo.lossType; the loss that reads it is not among its choices",
    "do_eval": "evaluation.strategy",
    "do_predict": "evaluation.final",
    "do_train": _NO_FIELD,
    "ds3_gather_for_generation": _NO_FIELD,
    "enable_jit_checkpoint": "suspend; every pause, drain and preemption saves already",
    "entropy_coef_delta": _ADAPTIVE,
    "entropy_coef_max": _ADAPTIVE,
    "entropy_coef_min": _ADAPTIVE,
    "entropy_target": _ADAPTIVE,
    "eos_token": "model.tokenizer",
    "epsilon": "grpo.epsilon",
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
    "generation_batch_size": "training.batchSize and training.gradAccumSteps; the answers of a step are generated at once",
    "generation_kwargs": "grpo.temperature, grpo.topP and grpo.topK, or min_p and repetition_penalty",
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
    "label_smoothing": "dpo.labelSmoothing",
    "label_smoothing_factor": "leave it out: the loss is computed per token from TRL's fused head, which has none",
    "learning_rate": "training.learningRate",
    "length_column_name": _PREPARED,
    "liger_kernel_config": _NO_FIELD,
    "load_best_model_at_end": "output.use",
    "local_rank": _NO_FIELD,
    "log_completions": _COMPLETIONS,
    "log_completions_hub_repo": _COMPLETIONS,
    "log_level": "logging.level",
    "log_level_replica": "logging.level",
    "log_multimodal": _COMPLETIONS,
    "log_on_each_node": _LOGGING,
    "log_unique_prompts": _COMPLETIONS,
    "logging_first_step": _LOGGING,
    "logging_nan_inf_filter": "leave it out: a loss that is not finite ends the run",
    "logging_steps": "logging.steps",
    "logging_strategy": _LOGGING,
    "loss_type": "dpo.lossType or grpo.lossType",
    "loss_weights": "dpo.lossType; a job has one loss",
    "lr_scheduler_kwargs": "training.lrCosineCycles",
    "lr_scheduler_type": "training.lrScheduler",
    "max_completion_length": "dataset.contentMaxLength",
    "max_grad_norm": "training.maxGradNorm",
    "max_length": "training.maxSeqLength",
    "max_steps": "training.maxSteps",
    "max_tool_calling_iterations": "leave it out: tools are not called during training",
    "metric_for_best_model": "output.use",
    "model_init_kwargs": "the model and precision blocks",
    "num_completions_to_print": _COMPLETIONS,
    "num_generations": "grpo.numGenerations",
    "num_generations_eval": "grpo.numGenerations",
    "num_iterations": "grpo.numIterations",
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
    "precompute_ref_batch_size": _PRECOMPUTED,
    "precompute_ref_log_probs": _PRECOMPUTED,
    "prediction_loss_only": _EVALUATION,
    "project": "logging.trackers",
    "push_to_hub": _OUTPUT,
    "ref_model_mixup_alpha": _MOVING,
    "ref_model_sync_steps": _MOVING,
    "remove_unused_columns": _PREPARED,
    "report_to": "logging.trackers",
    "restore_callback_states_from_checkpoint": "leave it out: early stopping is always restored",
    "resume_from_checkpoint": "checkpoint.resumeFrom",
    "reward_weights": "grpo.rewardFunctions and grpo.rewardModelWeight",
    "run_name": "logging.trackers",
    "sapo_temperature_neg": _NO_LOSS,
    "sapo_temperature_pos": _NO_LOSS,
    "save_on_each_node": _CHECKPOINT,
    "save_only_model": "checkpoint.keepLast; beyond it weights alone are kept",
    "save_steps": "checkpoint.steps",
    "save_strategy": "checkpoint.strategy",
    "save_total_limit": "checkpoint.keepLast",
    "scale_rewards": "grpo.scaleRewards",
    "seed": "training.seed",
    "shuffle_dataset": "dataset.reshuffle",
    "skip_memory_metrics": _LOGGING,
    "steps_per_generation": "training.gradAccumSteps; the answers of a step are generated at once",
    "sync_ref_model": _MOVING,
    "temperature": "grpo.temperature",
    "tf32": "precision.tf32",
    "top_k": "grpo.topK",
    "top_p": "grpo.topP",
    "trackio_bucket_id": "logging.trackers",
    "trackio_space_id": "logging.trackers",
    "trackio_static_space_id": "logging.trackers",
    "train_sampling_strategy": "dataset.reshuffle",
    "transformers_continuous_batching_config": _BATCHED,
    "truncation_mode": "dataset.promptMaxLength and dataset.contentMaxLength",
    "trust_remote_code": "the model block",
    "undesirable_weight": "kto.undesirableWeight",
    "use_adaptive_entropy": _ADAPTIVE,
    "use_cache": _NO_FIELD,
    "use_cpu": "resources.device",
    "use_liger_kernel": _NO_FIELD,
    "use_transformers_continuous_batching": _BATCHED,
    "use_transformers_paged": _BATCHED,
    "use_vllm": _VLLM,
    "vespo_k_neg": _NO_LOSS,
    "vespo_k_pos": _NO_LOSS,
    "vespo_lambda_neg": _NO_LOSS,
    "vespo_lambda_pos": _NO_LOSS,
    "vllm_enable_sleep_mode": _VLLM,
    "vllm_gpu_memory_utilization": _VLLM,
    "vllm_group_port": _VLLM,
    "vllm_importance_sampling_cap": _VLLM,
    "vllm_importance_sampling_clip_max": _VLLM,
    "vllm_importance_sampling_clip_min": _VLLM,
    "vllm_importance_sampling_correction": _VLLM,
    "vllm_importance_sampling_mode": _VLLM,
    "vllm_max_model_length": _VLLM,
    "vllm_mode": _VLLM,
    "vllm_model_impl": _VLLM,
    "vllm_server_base_url": _VLLM,
    "vllm_server_host": _VLLM,
    "vllm_server_port": _VLLM,
    "vllm_server_timeout": _VLLM,
    "vllm_structured_outputs_regex": _VLLM,
    "vllm_tensor_parallel_size": _VLLM,
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
    kind, _, choices = ACCEPTED[name]
    if choices and text not in choices:
        raise ArgumentValueError(f"{name}: {show(text)} should be one of {', '.join(choices)}")
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
