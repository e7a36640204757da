"""The job that evaluates a checkpoint: the evaluated job's own spec, with nothing left to train."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.documents import validate_document
from finetune_cli.errors import CliError
from finetune_cli.evaluation import Manifest, build_evaluation, choose_checkpoints
from finetune_cli.job import Job
from tests.unit.finetune_cli.builders import make_checkpoint, make_job

DATA = {"dataset": {"uri": "s3://rows/train.jsonl", "region": "eu-west-1", "secretRef": {"name": "rows"}, "evalRatio": 0.1}}


def trained(spec: dict[str, Any] | None = None, **status: Any) -> Job:
    """A job with checkpoints of steps 20 and 40; of step 10 only the weights are left."""
    recent = [make_checkpoint(10, resumable=False), make_checkpoint(20), make_checkpoint(40)]
    return make_job("Paused", spec=DATA | (spec or {}), checkpoints={"latest": recent[-1], "recent": recent}, **status)


def evaluation(job: Job, eval_uri: str | None = None) -> Manifest:
    return build_evaluation(job, choose_checkpoints(job, [20])[0], eval_uri)


def test_it_goes_on_from_the_checkpoint_and_trains_nothing() -> None:
    """S-09, R-10: everything that makes the numbers stays; what asks for work beside the evaluation goes."""
    spec = {
        "presetRef": {"name": "lora-chat"},
        "skillLevel": "expert",
        "suspend": True,
        "replicas": 0,
        "training": {"maxSteps": 200, "maxStepsMode": "cap", "seed": 7},
        "checkpoint": {"strategy": "steps", "steps": 10, "intervalMinutes": 5, "keepLast": 3},
        "evaluation": {"strategy": "steps", "steps": 10, "batchSize": 8},
        "earlyStopping": {"patience": 3},
        "output": {"merge": True, "push": {"enabled": True, "repoId": "a/b"}},
    }
    made = evaluation(trained(spec, lastReplicas=2))["spec"]
    assert made["checkpoint"] == {"strategy": "no", "keepLast": 3, "resumeFrom": "s3://finetune/demo/a1/checkpoint-20"}
    assert made["training"] == {"maxSteps": 20, "maxStepsMode": "override", "seed": 7}
    assert made["evaluation"] == {"strategy": "no", "final": True, "batchSize": 8}
    assert (made["replicas"], made["dataset"]) == (2, DATA["dataset"])
    assert not {"suspend", "presetRef", "skillLevel"} & made.keys()
    assert (made["output"]["push"], made["output"]["merge"], made["earlyStopping"]) == ({"enabled": False}, False, {"patience": 0})


AUTO = {
    "presetRef": {"name": "auto"},
    "model": {"uri": "hf://org/base"},
    "dataset": {"uri": "ref:rows"},
    "training": {"seed": 7},
}
SAID = {
    "dataset.uri": {"value": "s3://rows/train.jsonl", "source": "dataset", "name": "rows"},
    "dataset.region": {"value": "eu-west-1", "source": "dataset", "name": "rows"},
    "dataset.secretRef.name": {"value": "rows", "source": "dataset", "name": "rows"},
    "dataset.evalRatio": {"value": "0.1", "source": "preset", "name": "auto"},
    "dataset.systemPrompt": {"value": "42", "source": "preset", "name": "auto"},
    "adapter.targetModules": {"value": '["q_proj", "v_proj"]', "source": "preset", "name": "auto"},
    "training.batchSize": {"value": "4", "source": "preset", "name": "auto"},
    "training.packing": {"value": "true", "source": "default"},
}


def test_what_the_preset_said_then_is_written_out() -> None:
    """S-09, K-11: auto goes by the Dataset, whose name gives way to its address, and another preset may be edited."""
    document = evaluation(trained(AUTO, resolved=SAID))
    made = document["spec"]
    said = {"evalRatio": 0.1, "systemPrompt": "42"}
    assert made["dataset"] == {"uri": "s3://rows/train.jsonl", "region": "eu-west-1", "secretRef": {"name": "rows"}, **said}
    assert made["adapter"] == {"targetModules": ["q_proj", "v_proj"]}
    assert (made["training"]["batchSize"], made["training"]["seed"]) == (4, 7)
    assert "presetRef" not in made
    validate_document(document)


@pytest.mark.parametrize("cut", ["x" * 256, "You are a help…"])
def test_a_value_that_the_status_has_only_in_part_is_not_used(cut: str) -> None:
    """S-09: other numbers than the job's would pass for its own."""
    with pytest.raises(CliError, match=r"dataset\.systemPrompt of its preset is too long"):
        evaluation(trained(AUTO, resolved=SAID | {"dataset.systemPrompt": {"value": cut, "source": "preset"}}))


@pytest.mark.parametrize("eval_uri", [None, "s3://rows/test.jsonl"])
def test_it_is_a_job_like_any_other(eval_uri: str | None) -> None:
    """The same rules judge it."""
    validate_document(evaluation(trained(), eval_uri))


def test_other_rows_replace_the_split() -> None:
    made = evaluation(trained(), "s3://rows/test.jsonl")["spec"]["dataset"]
    assert made == DATA["dataset"] | {"evalUri": "s3://rows/test.jsonl", "evalRatio": 0}


def test_the_same_question_has_the_same_name() -> None:
    """At most 50 characters; another checkpoint, other rows, or another job of the same name are other questions."""
    names = {evaluation(trained(), uri)["metadata"]["name"] for uri in (None, None, "hf://a/b", "hf://a/c")}
    assert len(names) == 3
    assert all(name.startswith("demo-eval-20-") for name in names)
    job = trained()
    long = Job(type(job.ref)("x" * 50, "team"), job.uid, 1, "", {}, job.spec, job.status)
    assert len(evaluation(long)["metadata"]["name"]) == 50


def test_rows_to_evaluate_on_must_be_there() -> None:
    """The share may come from a preset, which the status knows."""
    without = {"dataset": {"uri": "hf://a/b"}}
    with pytest.raises(CliError, match="has no evaluation data"):
        evaluation(trained(without))
    evaluation(trained(without, resolved={"dataset.evalRatio": {"value": "0.1", "source": "preset"}}))


def test_only_what_can_be_resumed_is_evaluated() -> None:
    job = trained()
    assert [found.step for found in choose_checkpoints(job, [])] == [20, 40]
    with pytest.raises(CliError, match="has no resumable checkpoint-10; its status knows checkpoint-20, checkpoint-40"):
        choose_checkpoints(job, [10])
    with pytest.raises(CliError, match="its status knows none"):
        choose_checkpoints(make_job("Training", spec=DATA), [])
