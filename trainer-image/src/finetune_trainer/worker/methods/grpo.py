"""Method grpo: the model answers prompts and learns from the scores of its answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from finetune_api.models.spec import Grpo
from finetune_trainer.prepare.tokenizer import load_tokenizer, sequence_length
from finetune_trainer.prepare.tokens import Limits, cut_left
from finetune_trainer.rewards import Reward, build_rewards
from finetune_trainer.worker import resume
from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.evaluation import Evaluation, evaluate_batches
from finetune_trainer.worker.loader import Row, Rows, TaskRows
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.methods.reference import disables_dropout, load_reference, refuse_adapter_on_head
from finetune_trainer.worker.methods.rollout import NOT_REPEATED, engine_settings, rollout_arguments
from finetune_trainer.worker.model import load_model
from finetune_trainer.worker.order import AnswerShare
from finetune_trainer.worker.randomness import aside
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trainer import FineTuneTrainer, Material, settle_reference

EVALUATION_STREAM: Final = 5
"""Second word of the seed of answers generated for an evaluation; the others are in :mod:`finetune_trainer.worker.order` and ``resume``."""
MODEL_REWARD: Final = "model"
"""Name of the reward model's scores in the metrics."""


class AnswerTrainer(FineTuneTrainer, GRPOTrainer):  # type: ignore[misc]  # trl is not typed
    """Generates answers, a few at once, and learns from their scores."""

    rows_class: Callable[[Dataset], Rows] = TaskRows

    def __init__(self, session: Session, conductor: Conductor, material: Material, *, limits: Limits, **options: Any) -> None:
        assert session.spec.grpo is not None, "a resolved job of method grpo has the block"
        self._settings: Grpo = session.spec.grpo
        self._limits = limits
        self._answers = 0
        self._batch_tokens = 0
        super().__init__(session, conductor, material, **options)
        self.data_collator = with_all_columns
        if self._settings.rollout == "hf":
            # TRL never compiles; without a static cache nothing is compiled whatever is set here.
            self.generation_config.disable_compile = self._settings.enforce_eager

    @property
    def step_tokens(self) -> int | None:
        """Prompts and answers of the generation the step learns from."""
        return self._batch_tokens

    def shares(self) -> AnswerShare:
        """Each prompt of a step is there as often as it is answered; a rank generates all its answers of a step at once."""
        training, rank = self._session.spec.training, self._session.rank
        return AnswerShare(rank.rank, training.batch_size, training.grad_accum_steps, self._settings.num_generations)

    def floating_point_ops(self, _inputs: Any) -> int:
        """Nothing: rows are no tokens yet, and how many there will be only generation shows."""
        return 0

    def save_rank_state(self, directory: Path) -> None:
        """Keep generated answers that are still to be learnt from: another generation would give others."""
        if self._is_between_generations(self.state.global_step):
            return
        torch.save({"buffer": self._buffered_inputs, "tokens": self._batch_tokens}, self._state_file(directory))

    def load_rank_state(self, directory: Path) -> None:
        """Go on in the middle of a generation; with another number of ranks its answers are generated anew, which the group says."""
        step = self.state.global_step
        self._step = step * self.args.gradient_accumulation_steps
        if self._is_between_generations(step):
            return
        file = self._state_file(directory)
        if file.is_file() and not resume.ranks_changed(self._session, directory):
            state = torch.load(file, map_location=str(self.args.device.type), weights_only=True)
            self._buffered_inputs, self._batch_tokens = state["buffer"], state["tokens"]
            return
        self._session.warn("AnswersGeneratedAnew", f"the answers that step {step + 1} learns from were not kept for this rank")

    def run_evaluation(self, rows: Rows) -> Evaluation | None:
        """Answer every prompt as often as in training. What is drawn for it changes nothing of the training that follows."""
        prompts = self.args.per_device_eval_batch_size // self.num_generations
        session = self._session
        with aside(session.spec.training.seed, EVALUATION_STREAM, self.state.global_step, session.rank.rank):
            return evaluate_batches(session, rows, prompts, self._group_loss, lambda: self.take_metrics("eval"))

    def _group_loss(self, rows: Sequence[Row]) -> float:
        return self._batch_loss([row for row in rows for _ in range(self.num_generations)])

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        # TRL has no limit for prompts; preparing has counted those that are longer.
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        bos = self._tokenizer.bos_token_id
        return [cut_left(list(ids), self._limits.prompt, bos) for ids in prompt_ids], images, fields

    def _generate_single_turn(self, prompt_ids: list[Any], images: Any, fields: Any, num_generations: int, **options: Any) -> Any:
        # maxNumSeqs bounds the memory of generation, which TRL does for all answers of a step at once; vLLM's engine heeds it by itself.
        answers: list[list[int]] = []
        probabilities: list[list[float]] = []
        size = self._settings.max_num_seqs if self._settings.rollout == "hf" else len(prompt_ids)
        for start in range(0, len(prompt_ids), size):
            part, told = super()._generate_single_turn(prompt_ids[start : start + size], images, fields, num_generations, **options)
            answers += part
            probabilities += told or []
            self._answers += len(part)
            self._session.heartbeat.beat("Training" if self.model.training else "Evaluating", self._answers)
        return answers, probabilities or None

    def _generate(self, prompts: list[Any]) -> Any:
        before, training = self.state.num_input_tokens_seen, self.model.training
        result = super()._generate(prompts)
        if training:
            self._batch_tokens = int(self.state.num_input_tokens_seen - before)
        return result

    def _is_between_generations(self, step: int) -> bool:
        return step % self._settings.num_iterations == 0

    def _state_file(self, directory: Path) -> Path:
        return directory / f"finetune_rank_{self._session.rank.rank}.pt"


def with_all_columns(rows: Sequence[Row]) -> list[Row]:
    """Give every row of a batch the columns of all, None where it has none: TRL reads those of the first row in all."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer with its reward functions, reward model and reference."""
    session = request.session
    spec, settings = session.spec, session.spec.grpo
    assert settings is not None, "a resolved job of method grpo has the block"
    refuse_adapter_on_head(request)
    rewards = build_rewards(settings, session.plan.reward_sources)
    functions: list[Any] = [_named(reward) for reward in rewards]
    classes: list[PreTrainedTokenizerBase | None] = [None for _ in rewards]
    if settings.reward_model is not None:
        model, own_tokenizer = load_reward_model(request)
        functions.append(model)
        classes.append(own_tokenizer)
    reference = load_reference(request, settings.reference_model)
    if settings.rollout == "vllm" and session.plan.resume is not None:
        session.warn("AnswersNotRepeated", NOT_REPEATED)
    named = session.plan.reference_dir if reference is not None else None
    with _as_reference(request.material.model, named), engine_settings(spec):
        trainer = AnswerTrainer(
            session,
            request.conductor,
            request.material,
            limits=limits_of(session),
            args=request.args,
            reward_funcs=functions,
            reward_processing_classes=classes,
        )
    if settings.reward_model is not None:
        trainer.reward_func_names[-1] = MODEL_REWARD
    settle_reference(trainer)
    if reference is not None and trainer.ref_model is None and settings.beta > 0:
        _give_reference(trainer, reference)
    wanted, used = spec.evaluation.batch_size, trainer.args.per_device_eval_batch_size
    if request.material.evaluation is not None and used != wanted:
        session.warn(
            "EvaluationBatchRounded",
            f"evaluation.batchSize {wanted} is rounded up to {used}: an evaluation batch holds whole groups of {settings.num_generations} "
            "answers (grpo.numGenerations)",
        )
    return trainer


def make_arguments(session: Session, common: dict[str, Any]) -> GRPOConfig:
    """Build TRL's arguments."""
    settings = session.spec.grpo
    assert settings is not None, "a resolved job of method grpo has the block"
    limits = limits_of(session)
    weights = [1.0 if entry.weight is None else entry.weight for entry in settings.reward_functions or []]
    if settings.reward_model is not None:
        weights.append(settings.reward_model_weight)
    own = common | {
        "beta": settings.beta,
        "num_generations": settings.num_generations,
        "num_iterations": settings.num_iterations,
        "max_completion_length": limits.completion,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "epsilon": settings.epsilon,
        "loss_type": settings.loss_type,
        "scale_rewards": settings.scale_rewards,
        "reward_weights": weights,
        "disable_dropout": disables_dropout(session),
        **rollout_arguments(session.spec, limits),
    }
    return GRPOConfig(**with_extra_arguments(own, session.spec.training.extra_args))


def limits_of(session: Session) -> Limits:
    """Lengths of prompts and answers."""
    spec, directory = session.spec, session.plan.tokenizer_dir
    tokenizer = load_tokenizer(directory, runs_code=spec.model.trust_remote_code)
    return Limits.of(spec, sequence_length(spec, tokenizer, directory))


def load_reward_model(request: Request) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that scores answers, and its tokenizer.

    Raises :class:`TrainerError` (ModelError) for one that cannot be loaded or gives more than one number.
    """
    directory = request.session.plan.reward_dir
    assert directory is not None, "the supervisor fetches what the spec names"
    placed = not request.session.sharing.places_model
    model = load_model(directory, request.formats, request.device, placed=placed, kind="scores")
    return model.eval(), load_tokenizer(directory)


def _named(reward: Reward) -> Callable[..., Any]:
    """TRL shows a function's scores under its ``__name__``, which a partial does not have."""
    function: Any = reward.function
    if inspect.iscoroutinefunction(function):
        function.__name__ = reward.name
        return function  # type: ignore[no-any-return]

    def named(**values: Any) -> Any:
        return function(**values)

    named.__name__ = reward.name
    return named


@contextmanager
def _as_reference(model: Any, directory: Path | None) -> Iterator[None]:
    """While the trainer is built, let TRL find the named reference where it looks for the base model of full training."""
    config = model.config
    before: Mapping[str, str] = {"name": config._name_or_path}  # noqa: SLF001  # TRL reads it
    if directory is not None:
        config._name_or_path = str(directory)  # noqa: SLF001  # likewise
    try:
        yield
    finally:
        config._name_or_path = before["name"]  # noqa: SLF001  # likewise


def _give_reference(trainer: Any, reference: PreTrainedModel) -> None:
    """Use another model than the one below the adapter as reference, as TRL prepares its own."""
    if trainer.args.disable_dropout:
        disable_dropout_in_model(reference)
    add_fused_lm_head(reference, temperature=trainer.temperature)
    if trainer.is_deepspeed_enabled:
        trainer.ref_model = prepare_deepspeed(reference, trainer.accelerator)
    elif trainer.is_fsdp_enabled:
        trainer.ref_model = prepare_fsdp(reference, trainer.accelerator)
    else:
        trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)
