"""The built-in methods, one module each: TRL's trainer with ours mixed in, its arguments, its model, and what else a checkpoint needs.

A module defines ``make_arguments(session, common)`` and ``make_trainer(request)``. It is imported only when its method is trained, for each
of TRL's trainers takes seconds.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from finetune_trainer.errors import configuration_error

if TYPE_CHECKING:
    from finetune_trainer.worker.conductor import Conductor
    from finetune_trainer.worker.precision import Device, Formats
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer, Material

MODULES: Final = {"sft": "sft", "pretrain": "sft", "dpo": "dpo", "reward": "reward", "kto": "kto", "grpo": "grpo"}


@dataclass(frozen=True)
class Request:
    """What a method makes its trainer of."""

    session: Session
    conductor: Conductor
    material: Material
    formats: Formats
    device: Device
    args: Any
    """What :func:`make_arguments` has made."""


class MethodModule(Protocol):
    """What a method's module offers."""

    def make_arguments(self, session: Session, common: dict[str, Any]) -> Any:
        """Build TRL's configuration from what all methods share."""

    def make_trainer(self, request: Request) -> FineTuneTrainer:
        """Build the trainer; raises :class:`TrainerError` (ConfigurationError, ModelError) for what cannot be trained."""


def make_arguments(session: Session, common: dict[str, Any]) -> Any:
    """Build TRL's configuration, before the model: some strategies look at it while they load.

    Raises :class:`TrainerError` (ConfigurationError) for values of ``training.extraArgs`` that the method cannot use.
    """
    try:
        return method_module(session.spec.builtin_method).make_arguments(session, common)
    except TypeError as error:
        raise configuration_error(f"training.extraArgs: method {session.spec.method} does not take one of them: {error}") from error


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer of the job's method."""
    return method_module(request.session.spec.builtin_method).make_trainer(request)


def method_module(method: str) -> MethodModule:
    """Import a method's module."""
    return cast("MethodModule", importlib.import_module(f"{__name__}.{MODULES[method]}"))
