"""Between the export verb (no torch) and the two processes it starts: one makes the outputs, a fresh one reads them back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from finetune_api.contract.base import ContractModel
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import SamplePrompt
from finetune_api.models.output import GgufType

ENV_OUTPUTS_PLAN = "FINETUNE_OUTPUTS_PLAN"
"""Path of the :class:`OutputsPlan`."""


class OutputsPlan(ContractModel):
    """What to make, all on local disk."""

    step: Literal["make", "check"]
    name: str
    """Stem of GGUF files and their general.name."""
    base_dir: Path | None
    """The base model of an adapter; None: the final weights are a whole model."""
    final_dir: Path
    """Final adapter or model, with its tokenizer."""
    model_dir: Path
    """Gets the merged model; for a whole model the final weights themselves."""
    gguf_dir: Path
    gguf: list[GgufType] = []
    merged_wanted: bool = False
    """Whether the merged model is an output, not only a step on the way to GGUF."""
    runs_code: bool = False
    """Code beside the model may be run (``model.trustRemoteCode``)."""
    prompts: list[SamplePrompt] = []
    """What the final model shall answer."""
    reference: Path
    """Logits of the final weights (npz), written by make, read by check."""
    result: Path
    """Gets an :class:`OutputsResult`."""

    def gguf_file(self, kind: GgufType) -> Path:
        """Where the file of a number format is written."""
        return self.gguf_dir / f"{self.name}-{kind}.gguf"


class Answer(ContractModel):
    """An answer of the final model."""

    split: Literal["train", "eval"]
    prompt: str
    expected: str
    answer: str


class OutputsResult(ContractModel):
    """How a process ended: with answers or measured differences, or with a failure."""

    failure_class: FailureClass | None = None
    message: str = ""
    answers: list[Answer] = []
    deltas: dict[str, float] = {}
    """Output (merged, F16, ...) -> largest difference of logits."""
