import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_cli.__main__ import app
from finetune_cli.errors import CliError
from finetune_cli.manifest import find_preset, read_documents, read_job, read_presets, resolve_document
from finetune_cli.plan import summarise

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  presetRef: {name: quick-test}
  model: {uri: s3://finetune/models/tiny}
  dataset: {uri: configmap://sft/train.jsonl}
  resources: {device: cpu, processesPerReplica: 2}
  training: {batchSize: 4}
"""
CONFIG_MAP = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: sft}\n"
PRESET = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTunePreset
metadata: {name: mine}
spec:
  training: {learningRate: 0.001}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB + CONFIG_MAP)
    return path


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, CliError):
        raise result.exception
    return result.exit_code, result.output


def test_objects_of_other_groups_are_passed_over(manifest: Path) -> None:
    assert [(document.kind, document.name) for document in read_documents(manifest)] == [("FineTuneJob", "demo")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        (CONFIG_MAP, r"has no object of finetune\.dev/v1alpha1"),
        (f"{JOB}---\n{JOB.replace('demo', 'other')}", r"has 2 FineTuneJobs \(demo, other\)"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(CliError, match=message):
        read_job(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"nowhere\.yaml cannot be read: No such file"):
        read_job(tmp_path / "nowhere.yaml")


def test_shipped_presets_are_known_without_a_cluster(manifest: Path) -> None:
    """K-10: quick-test caps the run at 100 steps on 100 rows; the job's own batch size wins."""
    resolution = resolve_document(read_job(manifest), read_presets([]))
    assert (resolution.spec.training.max_steps, resolution.sources["training.maxSteps"]) == (100, "preset")
    assert (resolution.spec.training.batch_size, resolution.sources["training.batchSize"]) == (4, "job")
    assert summarise(resolution) == "1 pod on CPU, 2 ranks; 32 rows per optimizer step; 2 epochs, at most 100 optimizer steps"


def test_presets_in_files_win_over_shipped_ones(tmp_path: Path, manifest: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET.replace("mine", "quick-test"))
    assert find_preset(read_job(manifest), read_presets([preset])) == {"training": {"learningRate": 0.001}}


def test_an_unknown_preset_is_named_with_those_that_exist(manifest: Path) -> None:
    manifest.write_text(JOB.replace("quick-test", "quik-test"))
    with pytest.raises(
        CliError,
        match=r"spec\.presetRef\.name: there is no preset quik-test; known: auto, cheapest, fastest, .*quick-test, sft",
    ):
        resolve_document(read_job(manifest), read_presets([]))


def test_a_preset_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET.replace("learningRate: 0.001", "learningRat: 1"))
    with pytest.raises(CliError, match="did you mean learningRate"):
        read_presets([preset])


def test_validate_says_what_is_wrong_and_ends_with_1(manifest: Path) -> None:
    assert run("validate", "-f", manifest) == (0, f"{manifest}: FineTuneJob demo: valid\n")
    manifest.write_text(JOB.replace("batchSize: 4", "batchSize: 400").replace("name: demo", "name: Demo"))
    code, output = run("validate", "-f", manifest)
    assert code == 1
    assert "FineTuneJob Demo: invalid" in output
    assert "  metadata.name: " in output
    assert "  spec.training.batchSize: 400 is above the maximum 128" in output


def test_validate_gives_advice_without_refusing(manifest: Path) -> None:
    """AC-19: a learning rate outside the usual band is said, not refused."""
    manifest.write_text(JOB.replace("batchSize: 4", "learningRate: 5e-3"))
    code, output = run("validate", "-f", manifest)
    assert code == 0
    assert "  training.learningRate 0.005 is outside the usual band" in output


def test_validate_judges_job_and_preset_together(tmp_path: Path, manifest: Path) -> None:
    """A rule that neither of the two breaks alone: evaluation data given twice (a preset's ratio would give way to the job's file)."""
    preset = tmp_path / "preset.yaml"
    preset.write_text(PRESET.replace("training: {learningRate: 0.001}", "dataset: {evalUri: configmap://sft/eval.jsonl}"))
    manifest.write_text(JOB.replace("quick-test", "mine").replace("train.jsonl", "train.jsonl, evalRatio: 0.1"))
    code, output = run("validate", "-f", manifest, "--preset-file", preset)
    assert code == 1
    assert "spec.dataset.evalRatio: must be 0 together with dataset.evalUri" in output


def test_plan_shows_each_value_with_its_source(manifest: Path) -> None:
    code, output = run("plan", "-f", manifest, "-o", "json")
    values = json.loads(output)
    assert code == 0
    assert values["training.maxSteps"] == {"value": 100, "source": "preset"}
    assert values["adapter.rank"] == {"value": 16, "source": "default"}
    code, output = run("plan", "-f", manifest)
    assert "training.learningRate" in output
    assert "32 rows per optimizer step" in output


METHOD = """
apiVersion: finetune.dev/v1alpha1
kind: TrainingMethod
metadata: {name: own}
spec:
  image: own
  parameters: [{name: SPEED, type: integer, maximum: 3}]
  resources: {gpusPerReplica: 2}
"""
OWN_JOB = """
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: mine}
spec:
  methodRef: {name: own, parameters: {SPEED: "2"}}
  model: {uri: "hf://org/model"}
  dataset: {uri: "hf://org/data"}
  resources: {processesPerReplica: 2}
"""


def test_a_method_in_the_same_manifest_judges_its_job(tmp_path: Path) -> None:
    """B-01: parameters and resources are judged as the operator does, without a cluster."""
    file = tmp_path / "own.yaml"
    file.write_text(f"{METHOD}---{OWN_JOB}")
    assert run("validate", "-f", file)[0] == 0
    file.write_text(f"{METHOD}---{OWN_JOB}".replace('SPEED: "2"', 'SPEED: "4"'))
    code, output = run("validate", "-f", file)
    assert code == 1
    assert "spec.methodRef.parameters.SPEED: 4 is above the maximum 3" in output


def test_a_method_in_a_file_of_its_own(tmp_path: Path) -> None:
    """One that is only on the cluster is not judged here."""
    job, method = tmp_path / "job.yaml", tmp_path / "method.yaml"
    job.write_text(OWN_JOB)
    method.write_text(METHOD)
    resolution = resolve_document(read_job(job), read_presets([method]))
    assert (resolution.spec.resources.gpus_per_replica, resolution.sources["resources.gpusPerReplica"]) == (2, "method")
    job.write_text(OWN_JOB.replace("  resources: {processesPerReplica: 2}\n", ""))
    assert resolve_document(read_job(job), read_presets([])).spec.method is None


def test_a_plan_says_how_long_and_how_much(manifest: Path) -> None:
    """AC-13, AC-27, O-15: with the number of rows, steps, checkpoints and what suits so many."""
    manifest.write_text(JOB.replace("presetRef: {name: quick-test}", "presetRef: {name: sft}"))
    assert summarise(resolve_document(read_job(manifest), read_presets([])), 3200).endswith("; 200 optimizer steps; 2 checkpoints")
    code, output = run("plan", "-f", manifest, "--rows", "500")
    assert (code, "training.epochs 2: 3 to 10 are recommended for 500 rows." in " ".join(output.split())) == (0, True)


AUTO_JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  presetRef: {name: auto}
  model: {uri: s3://finetune/models/tiny}
  dataset: {uri: "ref:rows"}
  resources: {gpuType: l4}
---
apiVersion: finetune.dev/v1alpha1
kind: Dataset
metadata: {name: rows}
spec: {uri: configmap://rows/train.jsonl}
"""


def test_a_plan_says_why_the_preset_auto_takes_its_values(tmp_path: Path) -> None:
    """K-11, E-20, F-03: by the GpuType and the rows that the Dataset's status tells, as the operator does; in JSON as well."""
    path = tmp_path / "job.yaml"
    path.write_text(AUTO_JOB + "status: {examples: 20000, isWhole: true}\n")
    values = json.loads(run("plan", "-f", path, "-o", "json")[1])
    memory = "GpuType l4: 23034Mi of GPU memory (16 to below 24 GiB)"
    assert values["training.batchSize"] == {"value": 4, "source": "preset", "reason": memory}
    assert values["dataset.evalRatio"] == {"value": 0.05, "source": "preset", "reason": "20000 rows (above 10000)"}
    assert values["training.maxStepsMode"] == {"value": "cap", "source": "preset"}
    assert "preset: 20000 rows (above 10000)" in " ".join(run("plan", "-f", path)[1].split())


def test_what_the_preset_auto_does_not_know_is_said_beforehand(tmp_path: Path) -> None:
    """K-11: by validate and plan, with what to write."""
    path = tmp_path / "job.yaml"
    path.write_text(AUTO_JOB.replace("{gpuType: l4}", "{device: gpu}"))
    for verb in ("validate", "plan"):
        output = " ".join(run(verb, "-f", path)[1].split())
        assert "Preset auto: the memory of the GPUs is not known" in output
        assert "Preset auto: the number of rows is not known" in output


def test_explain_says_what_the_preset_auto_goes_by() -> None:
    assert "by GPU memory in auto" in " ".join(run("explain", "training.batchSize")[1].split())
