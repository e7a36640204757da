"""Whether the image can train, from the metadata of its packages (Z-01)."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import EnvironmentFacts
from finetune_trainer.errors import TrainerError
from finetune_trainer.supervisor.environment import load_run_config
from finetune_trainer.verbs import environment_check
from finetune_trainer.verbs.environment_check import check_environment, torch_build
from finetune_trainer.verbs.findings import Findings
from tests.unit.finetune_trainer.verbs.conftest import VerbPod


def checked(pod: VerbPod, distribution: str = "finetune-trainer", device: str = "cpu", **spec: Any) -> EnvironmentFacts:
    """The facts, of a refusal too."""
    config, found = load_run_config(pod.environment({"resources": {"device": device}, **spec}).run_config), Findings()
    with suppress(TrainerError):
        check_environment(config, found, distribution)
    assert found.environment is not None
    return found.environment


def own_image(directory: Path, monkeypatch: pytest.MonkeyPatch, *requirements: str) -> str:
    """A trainer that requires other packages, as pip would have installed it; returns its name."""
    folder = directory / "site/own_trainer-1.0.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", "Name: own-trainer", "Version: 1.0", *(f"Requires-Dist: {each}" for each in requirements)]
    (folder / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder.parent))
    return "own-trainer"


def test_this_trainer_has_what_it_requires(verb_pod: VerbPod) -> None:
    """Z-01: Python and the packages that decide on a training are told with their versions."""
    facts = checked(verb_pod)
    assert (facts.is_ready, facts.reason) == (True, "Checked")
    for name in ("torch", "transformers", "trl", "peft"):
        assert f"{name} {version(name)}" in facts.message


def test_a_missing_package_is_named_with_the_remedy(verb_pod: VerbPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Z-01: all that are missing, none that another platform needs."""
    own = own_image(verb_pod.directory, monkeypatch, "pydantic", "absent-one==1", "absent-two", "absent-three; sys_platform == 'none'")
    facts = checked(verb_pod, own)
    assert (facts.is_ready, facts.reason) == (False, "PackagesMissing")
    assert "lacks absent-one, absent-two (Python" in facts.message
    assert "chart value image.trainer" in facts.message


def test_another_version_is_told_and_not_refused(verb_pod: VerbPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Z-01: an image of one's own may know better."""
    facts = checked(verb_pod, own_image(verb_pod.directory, monkeypatch, "pydantic==0.1", "torch"))
    assert (facts.is_ready, facts.reason) == (True, "OtherVersions")
    assert f"pydantic {version('pydantic')} (made for ==0.1)" in facts.message


@pytest.mark.parametrize(("cuda", "device", "is_ready"), [("None", "gpu", False), ("None", "cpu", True), ("'13.0'", "gpu", True)])
def test_a_gpu_job_needs_a_torch_with_cuda(
    verb_pod: VerbPod, monkeypatch: pytest.MonkeyPatch, cuda: str, device: str, is_ready: bool
) -> None:
    """Z-01: known without a GPU, from what the build says of itself."""
    folder = verb_pod.directory / "site/built_torch"
    folder.mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '2.13.0+own'\ncuda = {cuda}\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(environment_check, "TORCH", "built_torch")
    facts = checked(verb_pod, device=device)
    assert facts.is_ready is is_ready
    assert is_ready or ("torch 2.13.0+own" in facts.message and "resources.device to cpu" in facts.message)


def test_a_refusal_ends_the_job_with_the_same_sentence(verb_pod: VerbPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Z-01: as ConfigurationError, which no retry repeats."""
    config = load_run_config(verb_pod.environment().run_config)
    with pytest.raises(TrainerError, match="the trainer image lacks absent-one") as caught:
        check_environment(config, Findings(), own_image(verb_pod.directory, monkeypatch, "absent-one"))
    assert caught.value.failure_class is FailureClass.CONFIGURATION


def test_the_build_of_torch_is_read_without_loading_it() -> None:
    assert torch_build("torch")["__version__"].partition("+")[0] == version("torch").partition("+")[0]
    assert torch_build("no_such_torch") == {}


def test_vllm_is_refused_by_an_image_without_it(verb_pod: VerbPod) -> None:
    """B-07: grpo.rollout vllm is for the second image target; hf asks for nothing."""
    cuda = torch_build("torch").get("cuda")
    block = {"rewardFunctions": [{"type": "length", "maxTokens": 6}]}
    spec: dict[str, Any] = {"method": "grpo", "training": {"batchSize": 4}, "grpo": {**block, "rollout": "vllm"}}
    facts = checked(verb_pod, device="gpu", **spec)
    assert (facts.is_ready, facts.reason) == (False, "RolloutMissing" if cuda else "CudaMissing")
    assert not cuda or "docker build trainer-image/vllm" in facts.message
    assert checked(verb_pod, **{**spec, "grpo": block}).is_ready
