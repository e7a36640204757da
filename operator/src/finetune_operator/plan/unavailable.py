"""What a job names and cannot have: a preset, a TrainingMethod or a BaseModel that is not there, or that may not be looked for."""

from __future__ import annotations

from finetune_api.constants import BASE_MODEL_KIND, CLUSTER_PRESET_KIND, METHOD_KIND
from finetune_operator.plan.observed import BaseModelFound, MethodFound, PresetFound


class UnavailableError(Exception):
    """Something is needed and there is none; ``reason`` is that of the condition Valid."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def no_cluster_presets(name: str) -> PresetFound:
    """The answer where this installation may not read presets of the cluster."""
    problem = (
        f"spec.presetRef.name: {name} is no FineTunePreset of this namespace, and this installation may not read {CLUSTER_PRESET_KIND}s"
    )
    return PresetFound(kind=CLUSTER_PRESET_KIND, problem=problem)


def no_method(name: str) -> MethodFound:
    """The answer where there is no TrainingMethod of a name."""
    problem = f"spec.methodRef.name: there is no {METHOD_KIND} named {name}; choose one of kubectl get trainingmethods"
    return MethodFound(name=name, problem=problem)


def no_methods(name: str) -> MethodFound:
    """The answer where this installation may not read TrainingMethods."""
    problem = (
        f"spec.methodRef.name: {name} cannot be looked up, for this installation may not read {METHOD_KIND}s;"
        " its administrator sets rbac.clusterReads, or write method"
    )
    return MethodFound(name=name, problem=problem)


def no_base_model(name: str) -> BaseModelFound:
    """The answer where there is no BaseModel of a name."""
    problem = f"spec.model.uri: ref:{name}: there is no {BASE_MODEL_KIND} named {name}; choose one of kubectl get basemodels, or an address"
    return BaseModelFound(name=name, problem=problem)


def no_base_models(name: str) -> BaseModelFound:
    """The answer where this installation may not read BaseModels."""
    problem = (
        f"spec.model.uri: ref:{name} cannot be looked up, for this installation may not read {BASE_MODEL_KIND}s;"
        " its administrator sets rbac.clusterReads, or write the model's address"
    )
    return BaseModelFound(name=name, problem=problem)
