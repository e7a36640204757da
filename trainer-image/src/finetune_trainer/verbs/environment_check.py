"""The part of preflight that says whether the image can train: its packages, and CUDA for a job on GPUs. Nothing large is imported."""

from __future__ import annotations

import platform
import runpy
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from finetune_api.contract.preflight import EnvironmentFacts
from finetune_api.contract.run_config import RunConfig
from finetune_trainer.errors import configuration_error
from finetune_trainer.rollout import MISSING, has_rollout
from finetune_trainer.verbs.findings import Findings

DISTRIBUTION: Final = "finetune-trainer"
"""Whose requirements the image must meet."""
TORCH: Final = "torch"
TOLD: Final = (TORCH, "transformers", "trl", "peft")
"""Packages whose versions are told."""
MAX_NAMED: Final = 8
REMEDY: Final = "have the administrator set the chart value image.trainer to an image of this version"


def check_environment(config: RunConfig, found: Findings, distribution: str = DISTRIBUTION) -> dict[str, str]:
    """Every package that ``distribution`` requires must be installed, and torch built with CUDA for a job on GPUs (Z-01).

    Other versions than required are told and not refused: who builds an image of their own may know better. Facts go to ``found``.
    Raises :class:`TrainerError` (ConfigurationError) where the job cannot train in this image.
    """
    wanted = [each for each in map(Requirement, requires(distribution) or ()) if each.marker is None or each.marker.evaluate()]
    installed = {each.name: _installed(each.name) for each in wanted}
    if missing := [name for name, number in installed.items() if number is None]:
        _refuse(found, "PackagesMissing", f"the trainer image lacks {', '.join(missing[:MAX_NAMED])} (Python {_python()}): {REMEDY}")
    cuda = torch_build(TORCH).get("cuda")
    if config.spec.resources.device == "gpu" and cuda is None:
        built = torch_build(TORCH).get("__version__")
        _refuse(
            found,
            "CudaMissing",
            f"resources.device is gpu, and torch {built} of the trainer image is built without CUDA: {REMEDY} that has it, "
            "or set resources.device to cpu",
        )
    told = ", ".join(f"{name} {installed[name]}" for name in TOLD if name in installed)
    if config.spec.grpo is not None and not has_rollout(config.spec.grpo):
        _refuse(found, "RolloutMissing", MISSING)
    message = f"Python {_python()}, {told}, CUDA {cuda or 'none'}; {len(installed)} required packages are installed."
    other = [
        f"{each.name} {installed[each.name]} (made for {each.specifier})"
        for each in wanted
        if not each.specifier.contains(installed[each.name] or "", prereleases=True)
    ]
    if other:
        message += f" Not of the version this trainer was tested with: {', '.join(other[:MAX_NAMED])}."
    found.environment = EnvironmentFacts(is_ready=True, reason="OtherVersions" if other else "Checked", message=message)
    return {}


def torch_build(package: str) -> dict[str, Any]:
    """What a build of torch says of itself: ``__version__``, ``cuda`` (None: built without). Empty where there is none."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(places))) / "version.py" if places else None
    return runpy.run_path(str(file)) if file is not None and file.is_file() else {}


def _installed(name: str) -> str | None:
    """The version of a distribution; None where it is not there, or where its module is not."""
    try:
        number = version(name)
    except PackageNotFoundError:
        return None
    return number if name not in TOLD or find_spec(name) is not None else None


def _python() -> str:
    return platform.python_version()


def _refuse(found: Findings, reason: str, message: str) -> None:
    found.environment = EnvironmentFacts(is_ready=False, reason=reason, message=f"{message[0].upper()}{message[1:]}.")
    raise configuration_error(f"{message}.")
