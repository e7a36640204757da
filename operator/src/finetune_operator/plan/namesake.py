"""Names for people that two objects of a namespace have: the later one says so. It is advice, for people alone go by them."""

from __future__ import annotations

from typing import Final

from finetune_operator.plan.observed import OwnObject

DISPLAY_NAME_TAKEN: Final = "DisplayNameTaken"
"""Condition: an older object of the kind has the same displayName (D-12, J-02)."""


def namesake_warning(own: OwnObject, older: str | None) -> dict[str, str]:
    """Condition and sentence where there is an ``older`` object of the same displayName."""
    if older is None:
        return {}
    shown = own.spec.get("displayName")
    return {
        DISPLAY_NAME_TAKEN: f"spec.displayName: {shown} is that of {own.kind} {older} already, which was there before; write another one"
    }
