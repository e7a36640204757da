"""The tables of ``training.extraArgs`` against the pinned library, and how they reach it."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from trl import SFTConfig

from finetune_api.arguments import ACCEPTED, REFUSED
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.arguments import with_extra_arguments

KINDS = {"boolean": bool, "integer": int, "number": float, "text": str, "object": dict}


def test_every_argument_of_the_library_is_accepted_or_refused() -> None:
    """F-32: an upgrade that adds or drops an argument fails here."""
    assert {field.name for field in dataclasses.fields(SFTConfig)} == {*ACCEPTED, *REFUSED}


def test_kinds_are_the_library_s() -> None:
    hints = typing.get_type_hints(SFTConfig)
    wrong = {}
    for name, argument in ACCEPTED.items():
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
