"""Whether this image can generate answers with vLLM (``grpo.rollout``). Nothing large is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from finetune_api.models.spec import Grpo
from finetune_trainer.errors import configuration_error

PACKAGE: Final = "vllm"
MISSING: Final = (
    "grpo.rollout: vllm is not in this image: set resources.image to one made with docker build "
    "trainer-image/vllm, or set grpo.rollout to hf"
)


def has_rollout(settings: Grpo) -> bool:
    """Whether what is to generate the answers is in the image."""
    return settings.rollout == "hf" or find_spec(PACKAGE) is not None


def check_rollout(settings: Grpo) -> None:
    """Raise :class:`TrainerError` (ConfigurationError) where the answers are to come from vLLM and the image is without it."""
    if not has_rollout(settings):
        raise configuration_error(f"{MISSING}.")
