"""What a method needs beside model and data: a reference model, a reward model, reward functions of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.sources.context import Role, Source, SourceContext
from finetune_trainer.sources.resolve import FetchedModel, fetch_file, fetch_model
from finetune_trainer.store.credentials import SecretFiles


@dataclass(frozen=True)
class Companions:
    """Companions on local disk."""

    reference: Path | None = None
    reward: Path | None = None
    reward_sources: dict[str, Path] = field(default_factory=dict)
    """URI -> Python file."""
    revisions: dict[str, str] = field(default_factory=dict)
    """Spec field -> revision of the model it names."""


def reference_of(spec: FineTuneJobSpec) -> tuple[Role, str] | None:
    """The field that names a reference model, and its URI."""
    if spec.dpo is not None and spec.dpo.reference_model is not None:
        return "dpo.referenceModel", spec.dpo.reference_model
    if spec.kto is not None and spec.kto.reference_model is not None:
        return "kto.referenceModel", spec.kto.reference_model
    if spec.grpo is not None and spec.grpo.reference_model is not None:
        return "grpo.referenceModel", spec.grpo.reference_model
    return None


def companion_models(spec: FineTuneJobSpec) -> Iterator[tuple[Role, str]]:
    """Every field that names a model beside the trained one, with its URI."""
    reference = reference_of(spec)
    if reference is not None:
        yield reference
    if spec.grpo is not None and spec.grpo.reward_model is not None:
        yield "grpo.rewardModel", spec.grpo.reward_model


def fetch_companions(spec: FineTuneJobSpec, secret: SecretFiles, context: SourceContext, pinned: dict[str, str]) -> Companions:
    """Fetch what the method names, models of the pinned revisions if there are any.

    Raises :class:`TrainerError` (ModelError, ConfigurationError) naming the field.
    """
    models: dict[str, FetchedModel] = {}
    for role, uri in companion_models(spec):
        source = Source(uri, role, secret, spec.model.region)
        models[role] = fetch_model(source, context, pinned=pinned.get(role), needs_tokenizer=role == "grpo.rewardModel")
    reference = reference_of(spec)
    reward = models.get("grpo.rewardModel")
    return Companions(
        reference=models[reference[0]].directory if reference is not None else None,
        reward=reward.directory if reward is not None else None,
        reward_sources=fetch_reward_sources(spec, secret, context),
        revisions={role: model.revision for role, model in models.items()},
    )


def fetch_reward_sources(spec: FineTuneJobSpec, secret: SecretFiles, context: SourceContext) -> dict[str, Path]:
    """Fetch the Python files of reward functions: URI -> file."""
    entries = (spec.grpo.reward_functions or []) if spec.grpo is not None else []
    uris = dict.fromkeys(entry.source for entry in entries if entry.type == "python" and entry.source is not None)
    return {uri: fetch_file(Source(uri, "grpo.rewardFunctions", secret, spec.model.region), context) for uri in uris}
