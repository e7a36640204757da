"""The catalogue on the command line: what there is, and jobs that name a model of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.base_models import SHIPPED_BASE_MODELS
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.errors import CliError
from finetune_cli.manifest import read_job, read_presets, resolve_document
from finetune_cli.models import format_parameters, render_models, summarise_model
from tests.unit.finetune_cli.builders import recording_console

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  model: {uri: "ref:qwen2.5-3b-instruct"}
  dataset: {uri: configmap://sft/train.jsonl}
"""
OWN = """\
apiVersion: finetune.dev/v1alpha1
kind: BaseModel
metadata: {name: own}
spec:
  uri: pvc://models/own
  type: LLM
  defaults: {adapter: {rank: 8}}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(result.exception, CliError):
        raise result.exception
    return result.exit_code, result.output


def listed(*models: dict[str, Any]) -> list[list[str]]:
    """Cells of the table, header first."""
    console = recording_console(width=200)
    console.print(render_models(models))
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in console.export_text().splitlines()]


def test_models_are_listed_with_their_memory_per_parameter() -> None:
    """C-03, C-04: count, GPU memory per parameter, and whether jobs may begin to train it."""
    header, *rows = listed(*({"metadata": {"name": name}, "spec": spec} for name, spec in SHIPPED_BASE_MODELS.items()))
    assert header == ["NAME", "TYPE", "PARAMETERS", "BYTES PER PARAMETER", "CONTEXT", "ELIGIBLE", "DEPLOYED", "URI"]
    assert [row[0] for row in rows] == sorted(SHIPPED_BASE_MODELS)
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["qwen2.5-3b-instruct"] == [
        "LLM",
        "3.09 B",
        "2 in 16 bits, 0.67 in 4 bits",
        "32,768",
        "yes",
        "yes",
        "hf://Qwen/Qwen2.5-3B-Instruct",
    ]
    assert by_name["llama-3.1-8b-instruct-bnb-4bit"][2] == "0.71 in 4 bits"
    assert [name for name, row in by_name.items() if row[4] == "no"] == ["llama-3.2-11b-vision-instruct"]


def test_the_command_lists_those_that_new_jobs_may_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-03: eligible and deployed."""
    spec = {"uri": "pvc://m", "type": "LLM"}
    models = {"both": {}, "withdrawn": {"eligible": False}, "nowhere": {"deployed": False}}
    catalogue = Catalogue(*({"metadata": {"name": name}, "spec": {**spec, **own}} for name, own in models.items()))
    monkeypatch.setattr(Access, "connect", lambda _: catalogue)
    answers = {line.split()[0]: line.split()[5:7] for line in run("models")[1].splitlines()[1:]}
    assert answers == {"both": ["yes", "yes"], "nowhere": ["yes", "no"], "withdrawn": ["no", "yes"]}
    assert [line.split()[0] for line in run("models", "--eligible")[1].splitlines()[1:]] == ["both"]
    del catalogue.models[0]
    with pytest.raises(CliError, match="no BaseModel of the cluster is eligible and deployed"):
        run("models", "--eligible")


def test_what_is_not_known_is_said() -> None:
    """An entry of an administrator may have address and type alone."""
    (_, row) = listed({"metadata": {"name": "own"}, "spec": {"uri": "pvc://models/own", "type": "LLM"}})
    assert row == ["own", "LLM", "?", "?", "?", "yes", "yes", "pvc://models/own"]
    assert summarise_model("own", {}) == "BaseModel own: number of parameters not known; GPU memory per parameter not known"
    assert summarise_model("own", {"bytesPerParameter": {"bfloat16": 2}, "contextLength": 512}) == (
        "BaseModel own: number of parameters not known; GPU memory of its weights: 2 bytes per parameter in 16 bits; context of 512 tokens"
    )


@pytest.mark.parametrize(("parameters", "text"), [(8_030_261_248, "8.03 B"), (494_032_768, "494 M"), (10**9, "1.00 B"), (None, "?")])
def test_counts_as_models_are_called(parameters: int | None, text: str) -> None:
    assert format_parameters(parameters) == text


class Catalogue:
    """A cluster with these models."""

    def __init__(self, *models: dict[str, Any]) -> None:
        self.models = list(models)

    def base_models(self) -> list[dict[str, Any]]:
        return self.models


def test_the_command_lists_those_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-03."""
    monkeypatch.setattr(Access, "connect", lambda _: Catalogue({"metadata": {"name": "own"}, "spec": {"uri": "pvc://m", "type": "VLM"}}))
    code, output = run("models")
    assert code == 0
    assert output.splitlines()[1].split() == ["own", "VLM", "?", "?", "?", "yes", "yes", "pvc://m"]
    monkeypatch.setattr(Access, "connect", lambda _: Catalogue())
    with pytest.raises(CliError, match="the cluster has no BaseModels"):
        run("models")


def test_plan_shows_parameters_and_memory(manifest: Path) -> None:
    """C-04: of the chosen model; shipped ones are known without a cluster."""
    code, output = run("plan", "-f", manifest)
    assert code == 0
    assert (
        "BaseModel qwen2.5-3b-instruct: 3,085,938,688 parameters; GPU memory of its weights: 2 bytes per parameter in 16 bits (5.7 GiB), "
        "0.67 bytes per parameter in 4 bits (1.9 GiB); context of 32,768 tokens"
    ) in output
    line = next(line for line in output.splitlines() if line.startswith("model.uri"))
    assert line.split() == ["model.uri", "hf://Qwen/Qwen2.5-3B-Instruct", "BaseModel", "qwen2.5-3b-instruct"]
    values = json.loads(run("plan", "-f", manifest, "-o", "json")[1])
    assert values["model.uri"] == {"value": "hf://Qwen/Qwen2.5-3B-Instruct", "source": "model"}
    assert values["model.type"] == {"value": "LLM", "source": "model"}


def test_plan_shows_what_a_backend_sets(manifest: Path) -> None:
    """Every source has a style."""
    manifest.write_text(JOB + "  training: {backend: optimized}\n")
    assert run("plan", "-f", manifest)[0] == 0


def test_a_model_in_a_file_wins_over_a_shipped_one(tmp_path: Path, manifest: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(OWN.replace("name: own", "name: qwen2.5-3b-instruct"))
    resolution = resolve_document(read_job(manifest), read_presets([own]))
    assert (resolution.spec.model.uri, resolution.spec.adapter.rank) == ("pvc://models/own", 8)
    assert run("plan", "-f", manifest, "--base-model-file", own)[0] == 0


def test_a_model_in_the_same_manifest_judges_its_job(manifest: Path) -> None:
    manifest.write_text(JOB.replace("qwen2.5-3b-instruct", "own") + f"---\n{OWN}")
    assert run("validate", "-f", manifest) == (0, f"{manifest}: FineTuneJob demo: valid\n{manifest}: BaseModel own: valid\n")
    manifest.write_text(manifest.read_text().replace("{adapter: {rank: 8}}", "{adapter: {rank: 8000}}"))
    with pytest.raises(CliError, match="there is no BaseModel own"):
        run("validate", "-f", manifest)


def test_an_unknown_model_is_named_with_those_that_exist(manifest: Path) -> None:
    """C-02."""
    manifest.write_text(JOB.replace("qwen2.5-3b", "qwen3"))
    with pytest.raises(
        CliError, match=r"spec\.model\.uri: ref:qwen3-instruct: there is no BaseModel qwen3-instruct; known: falcon-7b-"
    ) as caught:
        run("validate", "-f", manifest)
    assert "--base-model-file" in caught.value.advice


def test_a_model_that_is_not_eligible_is_refused_beforehand(manifest: Path) -> None:
    """C-03, AC-48: with what the administrators say of it."""
    manifest.write_text(JOB.replace("qwen2.5-3b-instruct", "llama-3.2-11b-vision-instruct"))
    code, output = run("validate", "-f", manifest)
    assert code == 1
    assert "spec.model.uri: ref:llama-3.2-11b-vision-instruct: the administrators have marked this BaseModel as not eligible" in output
    with pytest.raises(CliError, match="mllama, by name"):
        run("plan", "-f", manifest)
