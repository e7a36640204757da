"""Names and shorthands of LoRA modules (G-07 to G-09, AC-31)."""

from __future__ import annotations

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import LORA_MODULES
from finetune_trainer.errors import TrainerError
from finetune_trainer.targets import check_modules, target_modules
from tests.unit.finetune_trainer.worker.conftest import MakeSpec


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["basic"], ["q_proj", "v_proj"]),
        (["enhanced"], ["q_proj", "k_proj", "v_proj", "o_proj"]),
        (["full"], ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        (["all-linear"], "all-linear"),
        (list(LORA_MODULES), list(LORA_MODULES)),
    ],
)
def test_shorthands(make_spec: MakeSpec, names: list[str], expected: list[str] | str) -> None:
    """Spelled out as the requirements do."""
    assert target_modules(make_spec(adapter={"targetModules": names}).adapter) == expected


@pytest.mark.parametrize("names", [["c_attn"], ["q_proj", "basic"], ["all-linear", "lm_head"]])
def test_unknown_names_are_refused(make_spec: MakeSpec, names: list[str]) -> None:
    """AC-31: listing the nine, the shorthands and the way to other names."""
    spec = make_spec(adapter={"targetModules": ["q_proj"]})
    with pytest.raises(TrainerError) as raised:
        target_modules(spec.adapter.model_copy(update={"target_modules": names}))
    assert raised.value.failure_class is FailureClass.CONFIGURATION
    assert all(name in raised.value.message for name in (*LORA_MODULES, "all-linear", "adapter.allowCustomModules"))


def test_other_names_where_allowed(make_spec: MakeSpec) -> None:
    """Checked against the model instead."""
    adapter = make_spec(adapter={"targetModules": ["c_attn"], "allowCustomModules": True}).adapter
    assert target_modules(adapter) == ["c_attn"]
    check_modules(["transformer.h.0.c_attn", "c_proj"], {"c_attn", "c_proj"})
    with pytest.raises(TrainerError, match="the model has no module named q_proj; it has c_attn, c_proj, or use all-linear"):
        check_modules(["q_proj", "c_attn"], {"c_attn", "c_proj"})
