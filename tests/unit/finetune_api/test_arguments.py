"""``training.extraArgs``: what is accepted, what is refused with what to use instead, and how texts become values."""

from __future__ import annotations

import pytest

from finetune_api.arguments import ACCEPTED, REFUSED, ArgumentValueError, argument_problems, read_arguments
from finetune_api.models.partial import JobInput, leaf_fields, validate_job
from finetune_api.problems import SpecError
from finetune_api.resolve import resolve
from finetune_api.rules import check_resolved
from tests.support.manifests import spec_of

BLOCKS = {path.partition(".")[0] for path, _ in leaf_fields(JobInput)}
FIELDS = {path for path, _ in leaf_fields(JobInput)}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("output_dir", "use output.uri"),
        ("save_steps", "use checkpoint.steps"),
        ("resume_from_checkpoint", "use checkpoint.resumeFrom"),
        ("load_best_model_at_end", "use output.use"),
        ("report_to", "use logging.trackers"),
        ("push_to_hub", "use the output block"),
        ("seed", "use training.seed"),
        ("logging_nan_inf_filter", "leave it out"),
        ("disable_dropout", "use adapter.dropout"),
        ("precompute_ref_log_probs", "leave it out: rows come in the order of the run"),
        ("use_vllm", "use grpo.maxNumSeqs"),
        ("loss_type", "use dpo.lossType or grpo.lossType"),
        ("neftune_noise_alfa", "did you mean neftune_noise_alpha?"),
        ("per_device_train_batchsize", "did you mean per_device_train_batch_size?"),
        ("zzz", "is no argument of TRL or transformers; known are"),
    ],
)
def test_refusals_name_what_to_use(name: str, instead: str) -> None:
    """F-32: invariants hold, and a typing error is told from a name that is decided elsewhere."""
    with pytest.raises(SpecError) as caught:
        validate_job(spec_of({"training.extraArgs": {name: "1"}}))
    assert f"spec.training.extraArgs: {name}" in str(caught.value)
    assert instead in str(caught.value)


def test_a_name_is_accepted_or_refused_never_both() -> None:
    assert set(ACCEPTED) & set(REFUSED) == set()


def test_refusals_name_fields_that_exist() -> None:
    words = {word.strip(",;") for text in REFUSED.values() for word in text.split() if "." in word.strip(",;")}
    assert {word for word in words if not any(f"{field}.".startswith(f"{word}.") for field in FIELDS)} == set()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("adam_beta2", "0.95", 0.95),
        ("adam_epsilon", "1e-6", 1e-6),
        ("ddp_bucket_cap_mb", "50", 50),
        ("full_determinism", "true", True),
        ("optim_args", "percentile_clipping=5", "percentile_clipping=5"),
        ("min_p", "0.05", 0.05),
        ("f_divergence_type", "js_divergence", "js_divergence"),
        ("activation_checkpointing_kwargs", '{"every_n_layers": 2}', {"every_n_layers": 2}),
    ],
)
def test_texts_become_values(name: str, text: str, value: object) -> None:
    assert read_arguments({name: text}) == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("adam_beta2", "high", "should be a number"),
        ("adam_beta2", "true", "should be a number"),
        ("ddp_bucket_cap_mb", "0.5", "should be a whole number"),
        ("full_determinism", "yes", "should be true or false"),
        ("activation_checkpointing_kwargs", "[]", "should be an object in JSON"),
    ],
)
def test_wrong_values_are_named(name: str, text: str, expected: str) -> None:
    with pytest.raises(ArgumentValueError, match=expected):
        read_arguments({name: text})
    (problem,) = check_resolved(resolve(spec_of({"training.extraArgs": {name: text}})))
    assert problem.path == f"spec.training.extraArgs.{name}"
    assert expected in problem.message


def test_a_text_outside_the_choices_is_refused() -> None:
    """TRL would end the run at its first step."""
    with pytest.raises(ArgumentValueError, match="should be one of token, sequence"):
        read_arguments({"importance_sampling_level": "word"})


@pytest.mark.parametrize(("name", "method"), [("min_p", "grpo"), ("ld_alpha", "dpo"), ("router_aux_loss_coef", "pretrain")])
def test_arguments_of_a_method_are_accepted(name: str, method: str) -> None:
    """F-32: what TRL knows for the job's method takes effect."""
    assert argument_problems({name: "0.5"}, method) == []


def test_arguments_of_another_method_are_refused() -> None:
    (problem,) = argument_problems({"min_p": "0.1"}, "dpo")
    assert problem.message == "is an argument of grpo, not of dpo"
