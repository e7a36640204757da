"""TrainingMethods: parameters judged and read, what programs are told, and how a job's method is found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.custom import VARIABLES, job_document, job_variables, place, revision
from finetune_api.contract.run_config import CustomMethod, JobIdentity, ProgressConfig, RunConfig, StoreConfig, Topology
from finetune_api.models.partial import validate_method
from finetune_api.models.training_method import Parameter, TrainingMethodSpec
from finetune_api.parameters import parameter_problems, problem_of_text, read_parameters, read_text
from finetune_api.problems import SpecError
from finetune_api.resolve import chosen_method, resolve
from finetune_api.rules import check_resolved
from tests.support.manifests import spec_of

OWN = {"methodRef.name": "own"}


def parameter(**fields: Any) -> Parameter:
    return Parameter.model_validate({"name": "A", "type": "string", **fields})


@pytest.mark.parametrize(
    ("fields", "text", "value"),
    [
        ({"type": "string"}, "", ""),
        ({"type": "integer"}, "-7", -7),
        ({"type": "integer", "minimum": 1, "maximum": 10}, "10", 10),
        ({"type": "number"}, "2e-4", 0.0002),
        ({"type": "number", "minimum": 0.5}, "0.5", 0.5),
        ({"type": "boolean"}, "false", False),
        ({"choices": ["a", "b"]}, "b", "b"),
    ],
)
def test_a_text_that_fits_is_read(fields: dict[str, Any], text: str, value: object) -> None:
    """B-02: values are texts in the job, and what they stand for in the file."""
    assert problem_of_text(parameter(**fields), text) == ""
    assert (read_text(parameter(**fields), text), type(read_text(parameter(**fields), text))) == (value, type(value))


@pytest.mark.parametrize(
    ("fields", "text", "says"),
    [
        ({"type": "integer"}, "1.0", '"1.0" should be a whole number'),
        ({"type": "integer", "minimum": 1}, "x", '"x" should be a whole number, at least 1'),
        ({"type": "number", "maximum": 2}, "nan", '"nan" should be a number, at most 2'),
        ({"type": "number", "minimum": 0, "maximum": 2}, "2.1", "2.1 is above the maximum 2"),
        ({"type": "integer", "minimum": 1}, "0", "0 is below the minimum 1"),
        ({"type": "boolean"}, "yes", '"yes" should be true or false'),
        ({"choices": ["exact", "fuzzy"]}, "fuzy", '"fuzy" is none of exact, fuzzy; did you mean fuzzy?'),
    ],
)
def test_a_text_that_does_not_fit_says_why(fields: dict[str, Any], text: str, says: str) -> None:
    assert problem_of_text(parameter(**fields), text) == says


@given(text=st.text(max_size=20), kind=st.sampled_from(["integer", "number", "boolean", "string"]))
def test_what_is_judged_to_fit_can_be_read(text: str, kind: str) -> None:
    """Whatever somebody writes: refused with a sentence, or read."""
    declared = parameter(type=kind)
    if not problem_of_text(declared, text):
        read_text(declared, text)


def test_problems_name_parameter_value_and_fix() -> None:
    declared = [parameter(name="TEACHER", required=True, description="Model that answers first"), parameter(name="B", default="x")]
    problems = parameter_problems("own", declared, {"TEACHR": "m", "BATCH_SIZE": "2"}, {"BATCH_SIZE": "training.batchSize"})
    assert [str(problem) for problem in problems] == [
        "spec.methodRef.parameters.TEACHR: is no parameter of TrainingMethod own; did you mean TEACHER?",
        "spec.methodRef.parameters.BATCH_SIZE: is set by spec.training.batchSize: write that, and leave it out here",
        "spec.methodRef.parameters.TEACHER: is required by TrainingMethod own (Model that answers first)",
    ]
    assert "it takes none" in parameter_problems("own", [], {"X": "1"}, {})[0].message


def test_defaults_are_filled_in_and_absent_ones_stay_absent() -> None:
    declared = [parameter(name="A", type="integer", default="3"), parameter(name="B")]
    assert read_parameters(declared, {}) == {"A": 3}


def test_a_method_of_the_administrators_is_validated_like_any_other_object() -> None:
    validate_method({"image": "own", "parameters": None})
    with pytest.raises(SpecError, match=r"spec\.image: is required"):
        validate_method({})


@pytest.mark.parametrize(
    ("uri", "path", "rev"),
    [
        ("hf://Qwen/Qwen3-8B@main", "Qwen/Qwen3-8B", "main"),
        ("hf://Qwen/Qwen3-8B", "Qwen/Qwen3-8B", None),
        ("pvc://models/llama", "/mnt/pvc/models/llama", None),
        ("configmap://rows/train.jsonl", "/mnt/configmap/rows/train.jsonl", None),
        ("s3://bucket/key@1", "s3://bucket/key@1", None),
        (None, None, None),
    ],
)
def test_addresses_become_what_a_program_can_open(uri: str | None, path: str | None, rev: str | None) -> None:
    """MODEL_PATH and DATASET_PATH of source 000."""
    assert (place(uri), revision(uri)) == (path, rev)


def variables(**leaves: Any) -> dict[str, str]:
    written = {path.replace("__", "."): value for path, value in leaves.items()}
    return job_variables(resolve(spec_of({**OWN, **written})).spec)


def test_the_variables_of_source_000() -> None:
    """Appendix 1, source 000: every name it has, with the job's resolved values."""
    told = variables(
        training__maxSteps=100, training__warmupSteps=5, quantization__mode="4bit", dataset__promptColumn="question",
        dataset__outputColumn="answer", dataset__contentMaxLength=512,
    )  # fmt: skip
    assert told == {
        "MODEL_PATH": "org/model", "DATASET_PATH": "org/data", "DATASET_SPLIT": "train", "PROMPT_INPUT_COLUMN": "question",
        "PROMPT_OUTPUT_COLUMN": "answer", "MAX_SAMPLES": "-1", "MAX_INPUT_LENGTH": "2048", "MAX_CONTENT_LENGTH": "512",
        "MAX_SEQ_LENGTH": "512", "LORA_RANK": "16", "LOAD_IN_4BIT": "true", "EPOCHS": "2", "MAX_STEPS": "100", "BATCH_SIZE": "2",
        "GRAD_ACCUM_STEPS": "4", "LEARNING_RATE": "0.0002", "WARMUP_STEPS": "5", "WARMUP_RATIO": "0.1", "MAX_GRAD_NORM": "1.0",
    }  # fmt: skip


def test_what_would_mislead_a_program_is_not_set() -> None:
    """AC-17, AC-18, X11, X12: a variable that is there decides, so that zero and auto are not handed on."""
    told = variables(training__maxSeqLength=0, adapter__type="full")
    assert not {"MAX_STEPS", "WARMUP_STEPS", "LOAD_IN_4BIT", "MAX_SEQ_LENGTH", "LORA_RANK"} & told.keys()
    assert variables(dataset__maxSamples=100)["MAX_SAMPLES"] == "100"


def test_every_variable_is_made_from_a_field() -> None:
    known = set(resolve(spec_of(OWN)).sources) | {"dataset.config", "dataset.evalUri", "dataset.promptColumn", "dataset.outputColumn"}
    assert {variable.path for variable in VARIABLES.values()} - known == {"dataset.contentMaxLength"}


def test_the_file_a_program_reads() -> None:
    """B-02: /etc/finetune/job.json."""
    resolution = resolve(spec_of({**OWN, "methodRef.parameters": {"A": "2"}, "replicas": 1}))
    method = TrainingMethodSpec.model_validate({"image": "own", "parameters": [{"name": "A", "type": "integer"}]})
    config = RunConfig(
        contract_version=1,
        job=JobIdentity(name="demo", namespace="team", uid="u-1"),
        run=3,
        spec=resolution.spec,
        topology=Topology(replicas=1, processes_per_replica=1, device="gpu", master_addr="localhost", master_port=29500),
        store=StoreConfig(uri="s3://bucket/team/demo/u-1"),
        progress=ProgressConfig(url="https://operator/x"),
        custom=CustomMethod(name="own", spec=method),
    )
    document = job_document(RunConfig.model_validate_json(config.to_json()))
    assert (document.run, document.parameters, document.final_uri) == (3, {"A": 2}, "s3://bucket/team/demo/u-1/final")
    assert document.output_dir == "/var/lib/finetune/work/output"


@pytest.mark.parametrize(
    ("job", "preset", "method"),
    [
        ({}, {}, None),
        ({"methodRef": {"name": "a"}}, {}, "a"),
        ({}, {"methodRef": {"name": "b"}}, "b"),
        ({"methodRef": {"name": "a"}}, {"methodRef": {"name": "b"}}, "a"),
        ({"method": "dpo"}, {"methodRef": {"name": "b"}}, None),
    ],
)
def test_the_method_a_job_chooses(job: dict[str, Any], preset: dict[str, Any], method: str | None) -> None:
    """B-01: job before preset; a built-in method of the job does away with the preset's."""
    assert chosen_method(job, preset) == method
    resolution = resolve({**spec_of({}), **job}, preset)
    assert (resolution.spec.method_ref.name if resolution.spec.method_ref else None) == method
    assert (resolution.spec.method is None) == (method is not None)


def test_a_preset_for_another_method_still_serves() -> None:
    """Its method, blocks and parameters are left out, the rest counts."""
    preset = {"method": "dpo", "dpo": {"beta": 0.5}, "training": {"epochs": 7}}
    spec = resolve(spec_of(OWN), preset).spec
    assert (spec.method, spec.dpo, spec.training.epochs) == (None, None, 7)
    other = {"methodRef": {"name": "other", "parameters": {"A": "1"}}}
    own = resolve(spec_of(OWN), other).spec.method_ref
    assert own is not None
    assert own.parameters is None


def test_resources_of_the_method_come_before_the_table_and_after_presets() -> None:
    """Precedence: job > preset > method > table; the rules between resources know them."""
    own = {"resources": {"gpusPerReplica": 4, "cpu": "8"}}
    resolution = resolve(spec_of({**OWN, "resources.processesPerReplica": 4}), {"resources": {"cpu": "2"}}, own)
    assert (resolution.spec.resources.gpus_per_replica, resolution.spec.resources.cpu) == (4, "2")
    assert resolution.sources["resources.gpusPerReplica"] == "method"
    assert check_resolved(resolution) == []
    without = resolve(spec_of({**OWN, "resources.processesPerReplica": 4}))
    assert [problem.path for problem in check_resolved(without)] == ["spec.resources.processesPerReplica"]
