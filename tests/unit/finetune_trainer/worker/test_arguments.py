"""The tables of ``training.extraArgs`` against the pinned library, and how they reach it."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from trl import DPOConfig, GRPOConfig, KTOConfig, RewardConfig, SFTConfig

from finetune_api.arguments import ACCEPTED, REFUSED
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.methods import MODULES

CONFIGS = {"sft": SFTConfig, "pretrain": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig, "reward": RewardConfig, "grpo": GRPOConfig}
KNOWN = {method: {field.name for field in dataclasses.fields(config)} for method, config in CONFIGS.items()}
KINDS = {"boolean": bool, "integer": int, "number": float, "text": str, "object": dict}


def test_every_argument_of_the_library_is_accepted_or_refused() -> None:
    """F-32: an upgrade that adds or drops an argument of a method fails here."""
    assert KNOWN.keys() == MODULES.keys()
    assert set.union(*KNOWN.values()) == {*ACCEPTED, *REFUSED}


def test_arguments_are_accepted_for_the_methods_that_have_them() -> None:
    """F-32: none is passed to a configuration that does not know it, nor kept from one that does."""
    assert {name: set(argument.methods or KNOWN) for name, argument in ACCEPTED.items()} == {
        name: {method for method, known in KNOWN.items() if name in known} for name in ACCEPTED
    }


@pytest.mark.parametrize("method", CONFIGS)
def test_kinds_are_the_library_s(method: str) -> None:
    hints = typing.get_type_hints(CONFIGS[method])
    wrong = {}
    for name, argument in ACCEPTED.items():
        if name not in hints:
            continue
        choices = typing.get_args(hints[name]) or (hints[name],)
        if KINDS[argument.kind] not in {typing.get_origin(choice) or choice for choice in choices}:
            wrong[name] = choices
    assert wrong == {}


def test_asked_arguments_win_and_objects_are_merged() -> None:
    own = {"ddp_find_unused_parameters": False, "activation_checkpointing_kwargs": {"use_reentrant": False}}
    extra = {"ddp_find_unused_parameters": "true", "activation_checkpointing_kwargs": '{"every_n_layers": 2}'}
    assert with_extra_arguments(own, extra) == {
        "ddp_find_unused_parameters": True,
        "activation_checkpointing_kwargs": {"use_reentrant": False, "every_n_layers": 2},
    }


def test_a_wrong_value_is_the_user_s_error() -> None:
    with pytest.raises(TrainerError, match=r"training.extraArgs: adam_beta1: \"x\" should be a number"):
        with_extra_arguments({}, {"adam_beta1": "x"})
