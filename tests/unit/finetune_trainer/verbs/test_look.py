"""look: what the data of a Dataset is, read without a job."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.failures import EXIT_USER_ERROR, FailureClass
from finetune_api.contract.look import DatasetIdentity, LookConfig, LookResult
from finetune_api.contract.termination import MAX_MESSAGE_BYTES, TerminationMessage
from finetune_api.models.dataset import MAX_SAMPLE_BYTES, DatasetSpec
from finetune_trainer.sources import hub as hub_source
from finetune_trainer.supervisor.environment import PodEnvironment, pod_environment
from finetune_trainer.verbs.look import run_look
from tests.support.hub import running_hub
from tests.support.pods import write_model

EXAMPLE = Path(__file__).parents[4] / "tests/data/datasets/messages.jsonl"


@dataclass
class LookPod:
    """Directories of a look's pod."""

    directory: Path

    def write(self, *rows: object, name: str = "train.jsonl") -> None:
        folder = self.directory / "configmap/rows"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))

    def environment(self, version: int = CONTRACT_VERSION, **spec: Any) -> PodEnvironment:
        config = LookConfig(
            contract_version=version,
            dataset=DatasetIdentity(name="rows", namespace="team", uid="uid-1"),
            look=3,
            spec=DatasetSpec.model_validate({"uri": "configmap://rows/train.jsonl", **spec}),
        )
        (self.directory / "config.json").write_text(config.to_json())
        names = {
            env.ENV_RUN_CONFIG: "config.json",
            env.ENV_WORK_DIR: "work",
            env.ENV_CACHE_DIR: "cache",
            env.ENV_SECRETS_DIR: "secrets",
            env.ENV_CONFIGMAP_DIR: "configmap",
            env.ENV_PVC_DIR: "pvc",
            env.ENV_TERMINATION_MESSAGE: "termination",
        }
        return pod_environment({name: str(self.directory / path) for name, path in names.items()})

    def look(self, **spec: Any) -> TerminationMessage:
        code = run_look(self.environment(**spec))
        text = (self.directory / "termination").read_text()
        assert len(text.encode()) <= MAX_MESSAGE_BYTES
        message = TerminationMessage.model_validate_json(text)
        assert (message.exit_code, message.run) == (code, 3)
        return message

    def found(self, **spec: Any) -> LookResult:
        message = self.look(**spec)
        assert (message.exit_code, message.failure_class) == (0, None), message.message
        return LookResult.model_validate(message.result)

    def refused(self, **spec: Any) -> tuple[FailureClass | None, str]:
        message = self.look(**spec)
        assert message.exit_code != 0
        return message.failure_class, message.message


@pytest.fixture
def pod(tmp_path: Path) -> LookPod:
    return LookPod(tmp_path)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages"),
        ({"instruction": "a", "output": "b"}, "alpaca"),
        ({"question": "a", "answer": "b"}, "prompt-completion"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"prompt": "a"}, "prompt-completion"),
        ({"text": "a"}, "text"),
    ],
)
def test_rows_of_every_method_are_read(pod: LookPod, row: dict[str, Any], kind: str) -> None:
    """D-05, E-01: a Dataset belongs to no method; its first row decides how all are read."""
    pod.write(row, row)
    found = pod.found()
    assert found.dataset is not None
    assert (found.dataset.format, found.dataset.examples, found.dataset.is_whole, found.columns) == (kind, 2, True, list(row))
    assert [json.loads(sample) for sample in found.samples] == [row, row]
    assert found.digest
    assert found.warnings == {"DatasetSmall": "2 examples; at least 1000 are recommended"}


def test_two_conversations_are_few_and_known(pod: LookPod) -> None:
    """AC-02: the example of the source."""
    pod.write(*map(json.loads, EXAMPLE.read_text().splitlines()))
    found = pod.found()
    assert found.dataset is not None
    assert (found.dataset.format, found.dataset.examples) == ("messages", 2)
    assert set(found.warnings) == {"DatasetSmall"}


@pytest.mark.parametrize(("rows", "warned"), [(999, True), (1000, False)])
def test_few_examples_are_said(pod: LookPod, rows: int, warned: bool) -> None:
    """D-06, AC-46."""
    pod.write(*({"text": str(n)} for n in range(rows)))
    found = pod.found()
    assert ("DatasetSmall" in found.warnings) == warned
    assert len(found.samples) == 3


def test_evaluation_data_is_counted(pod: LookPod) -> None:
    """E-09."""
    pod.write({"text": "a"})
    pod.write({"text": "b"}, {"text": "c"}, name="eval.jsonl")
    facts = pod.found(evalUri="configmap://rows/eval.jsonl").dataset
    assert facts is not None
    assert (facts.examples, facts.eval_examples) == (1, 2)


def test_a_malformed_row_names_file_line_and_field(pod: LookPod) -> None:
    """Errors name field, value and fix; skip counts them."""
    pod.write({"question": "a", "answer": "b"}, {"question": "a", "answer": 3}, "{broken")
    kind, message = pod.refused()
    assert kind is FailureClass.DATA
    assert "train.jsonl, line 2" in message
    assert "answer" in message
    found = pod.found(onError="skip")
    assert found.dataset is not None
    assert (found.dataset.examples, found.dataset.skipped) == (1, 2)
    assert "2 malformed rows" in found.warnings["RowsSkipped"]


def test_fields_are_named_as_the_dataset_has_them(pod: LookPod) -> None:
    """Not as a job's block."""
    assert pod.refused() == (
        FailureClass.DATA,
        "spec.uri configmap://rows/train.jsonl: ConfigMap rows does not exist or is empty in this namespace.",
    )
    pod.write({"one": "a", "two": "b"})
    kind, message = pod.refused()
    assert kind is FailureClass.DATA
    assert "name other columns in spec.promptColumn and spec.outputColumn" in message
    assert pod.found(promptColumn="one", outputColumn="two").columns == ["one", "two"]


def test_the_longest_answer_fits(pod: LookPod) -> None:
    """A termination message has 4096 bytes: samples are cut, quotes and other alphabets counted as they are sent."""
    names = [f"{'ж' * 70}{n}" for n in range(40)]
    row = {"text": '"' * 3000, **dict.fromkeys(names, "ё" * 500)}
    pod.write(*[row] * 5, *["{broken" + "x" * 500] * 3)
    found = pod.found(onError="skip")
    assert 8 < len(found.columns) < 16
    assert all(len(name.encode()) <= 64 for name in found.columns)
    assert len(found.samples) == 3
    assert all(len(json.dumps(sample, ensure_ascii=False).encode()) - 2 <= MAX_SAMPLE_BYTES for sample in found.samples)
    assert all(sample.endswith("…") for sample in found.samples)


COUNTS = """\
import json, os, sys
plan = json.loads(open(os.environ["FINETUNE_MEASURE_PLAN"]).read())
config = json.loads(open(plan["runConfig"]).read())
assert (config["spec"]["model"]["uri"], config["spec"]["dataset"]["onError"]) == ("pvc://models/tiny", "skip"), config
assert os.path.isdir(plan["tokenizerDir"])
open(plan["output"], "w").write(sys.argv[1])
"""


@pytest.mark.parametrize("reads", [True, False])
def test_tokens_are_counted_where_a_tokenizer_is_named(pod: LookPod, reads: bool) -> None:
    """E-28: by the program that prepares rows; rows it cannot read are no fault of the data."""
    write_model(pod.directory / "pvc/models/tiny")
    pod.write({"text": "a"}, {"text": "b"})
    script = pod.directory / "counts.py"
    script.write_text(COUNTS)
    counted = {"rows": 2, "tokens": {"p50": 3, "p95": 7, "max": 9}} if reads else {"rows": 0, "failureClass": "DataError", "message": "no"}
    environment = pod.environment(tokenizer={"uri": "pvc://models/tiny"})
    assert run_look(replace(environment, program=(sys.executable, str(script), json.dumps(counted)))) == 0
    result = TerminationMessage.model_validate_json((pod.directory / "termination").read_text()).result
    found = LookResult.model_validate(result)
    assert found.dataset is not None
    facts = found.dataset
    assert (facts.token_rows, facts.tokens_p50, facts.tokens_p95, facts.tokens_max) == ((2, 3, 7, 9) if reads else (0, 0, 0, 0))
    assert found.warnings.get("TokensNotCounted") == (None if reads else "no")
    kind, message = pod.refused(tokenizer={"uri": "pvc://models/absent"})
    assert "tokenizer.uri pvc://models/absent" in message
    assert kind is not None


def test_a_hub_that_is_away_is_no_fault_of_the_data(pod: LookPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again: the class says so."""
    monkeypatch.setattr(hub_source, "OUTAGE_PATIENCE_SECONDS", 0.1)
    secret = pod.directory / "secrets/huggingface"
    secret.mkdir(parents=True)
    with running_hub() as hub:
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        hub.add("datasets", "acme/rows", {"train.jsonl": b'{"text": "one"}\n'})
        found = pod.found(uri="hf://acme/rows", secrets={"huggingface": {"secretRef": {"name": "hub"}}}).dataset
        assert found is not None
        assert found.examples == 1
    kind, _ = pod.refused(uri="hf://acme/other", secrets={"huggingface": {"secretRef": {"name": "hub"}}})
    assert kind is FailureClass.HUB_UNAVAILABLE


def test_another_contract_is_refused(pod: LookPod) -> None:
    assert run_look(pod.environment(version=CONTRACT_VERSION + 1)) == EXIT_USER_ERROR
    assert "install a chart whose two images are of one version" in (pod.directory / "termination").read_text()
