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


def test_arguments_of_another_method_are_refused() -> None:
    assert [problem.message for problem in argument_problems({"pad_to_multiple_of": "8"}, "none")] == ["is an argument of sft, not of none"]
