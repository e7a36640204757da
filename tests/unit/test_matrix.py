"""The table of what was tried together: nothing is left open, and the page shows the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import matrix
from tests.support.matrix import LANGUAGE_OF_VLM, NOT_TRIED, PAGE, Cell, refusal, render, rows


def test_the_page_shows_the_results() -> None:
    """docs/reference/exactness.md is generated, and each combination was tried or is refused (issue 5)."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == render()
    assert NOT_TRIED not in page


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell("sft", "qlora", "fsdp", 2), "spec.quantization.mode: fsdp cannot split weights in 4 bits"),
        (Cell("dpo", "lora", "ddp", 2, "VLM"), "spec.model.type: VLM is for method sft"),
        (Cell("dpo", "lora", "ddp", 2, LANGUAGE_OF_VLM), "method: dpo trains language models"),
    ],
)
def test_a_refusal_is_the_message_of_the_api_or_of_the_trainer(cell: Cell, message: str) -> None:
    assert (refusal(cell) or "").startswith(message)


@pytest.mark.parametrize("cell", [Cell("grpo", "qlora", "ddp", 2), Cell("sft", "full", "zero3", 2, "VLM")])
def test_other_jobs_are_accepted(cell: Cell) -> None:
    assert refusal(cell) is None


def test_a_combination_that_was_not_tried_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [row for row in json.loads(matrix.RESULTS.read_text()) if row["method"] != "kto"]
    lacking = tmp_path / "results.json"
    lacking.write_text(json.dumps(kept))
    monkeypatch.setattr(matrix, "RESULTS", lacking)
    results = {row.result for row in rows() if row.method == "kto" and row.model == "LLM" and row.adapter == "lora"}
    assert results == {NOT_TRIED}
