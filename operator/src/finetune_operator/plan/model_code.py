"""Whether trainer pods may run the code that lies beside a model: the administrator's word, by address."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from finetune_api.contract.run_config import ChosenModel
from finetune_api.models.spec import FineTuneJobSpec

CHART_VALUE = "trainer.trustRemoteCode.allowed"
MAX_PATTERNS = 5
"""Patterns that a refusal repeats."""


def code_refusal(spec: FineTuneJobSpec, allowed: Sequence[str], base_model: ChosenModel | None = None) -> str:
    """Why code of the model or its tokenizer may not be run; empty when it may, or when none is asked for.

    A BaseModel that allows its code answers for the model's address alone.
    """
    if not spec.model.trust_remote_code:
        return ""
    addresses = {} if base_model is not None and base_model.trusts_code else {"model.uri": spec.model.uri}
    if spec.model.tokenizer is not None:
        addresses["model.tokenizer.uri"] = spec.model.tokenizer.uri
    for path, address in addresses.items():
        if not any(fnmatchcase(address, pattern) for pattern in allowed):
            return (
                f"spec.model.trustRemoteCode: this installation does not allow code of {address} (spec.{path}) to be run; it allows "
                f"{_shown(allowed)}. Ask the administrator to add the address to the chart value {CHART_VALUE}, or to offer it as a "
                "BaseModel with trustRemoteCode; or set trustRemoteCode to false."
            )
    return ""


def _shown(allowed: Sequence[str]) -> str:
    rest = len(allowed) - MAX_PATTERNS
    return (", ".join(allowed[:MAX_PATTERNS]) + (f" and {rest} more" if rest > 0 else "")) or "none"
