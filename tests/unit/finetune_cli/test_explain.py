"""kubectl finetune explain: what is known of each field, from the models alone."""

import pytest
from rich.console import RenderableType
from typer.testing import CliRunner

from finetune_api.advice import ATTACHING, RECOMMENDATIONS, WITHOUT_EFFECT
from finetune_api.describe import describe_meaning, facts
from finetune_api.models.base import Tier
from finetune_cli.__main__ import app
from finetune_cli.errors import CliError
from finetune_cli.explain import explain_job, explain_name, job_fields, render_field
from tests.unit.finetune_cli.builders import recording_console


def shown(what: RenderableType, width: int = 1000) -> str:
    """The text of it, blanks aside."""
    console = recording_console(width=width)
    console.print(what)
    return "\n".join(" ".join(line.split()) for line in console.export_text().splitlines())


def test_default_range_and_recommendation_stand_beside_each_other() -> None:
    """F-33, AB-04: as a person types it, without a cluster."""
    result = CliRunner().invoke(app, ["explain", "spec.training.batchSize"])
    text = "\n".join(" ".join(line.split()) for line in result.output.splitlines())
    assert result.exit_code == 0
    assert text.startswith("spec.training.batchSize\nRows per device and step.\n")
    for line in (
        "unit rows per device",
        "range 1 to 128",
        "edit after a run identity: would make it another training and is refused",
        "warned where it is above 15; it needs much GPU memory (X01)",
        "rule must be at least 2 with method kto, which compares each prompt with the answer to another one (B-01)",
    ):
        assert line in text.splitlines()
    assert "\ndefault 2; 8 in profile-003" in text
    assert "\nrecommended 1-2 at 4 GB, 2-4 at 8 GB" in text


def test_every_field_says_what_its_crd_says() -> None:
    """F-33: there is no second table."""
    for path, node in job_fields().items():
        text = shown(render_field(path, node), width=2000)
        assert text.startswith(f"spec.{path}\n{describe_meaning(path, node)}\n")
        assert all(f"\n{label.lower()} {said}\n" in text for label, said in facts(path, node).items() if said)


def test_all_advice_is_beside_a_field() -> None:
    """AB-04."""
    assert {each.path for each in (*RECOMMENDATIONS, *ATTACHING, *WITHOUT_EFFECT)} <= set(job_fields())


def test_what_every_job_must_write_has_no_default() -> None:
    assert "\ndefault none: required\n" in shown(explain_name("model.uri", Tier.ADVANCED))
    assert "\ndefault none\n" in shown(explain_name("model.region", Tier.ADVANCED))


def test_a_bare_name_shows_every_field_of_that_name() -> None:
    text = shown(explain_name("batchSize", Tier.ADVANCED))
    assert [line for line in text.splitlines() if line.startswith("spec.")] == ["spec.training.batchSize", "spec.evaluation.batchSize"]


def test_of_a_block_each_field_has_a_line() -> None:
    text = shown(explain_name("output.export.gguf", Tier.ADVANCED))
    assert [line.split()[0] for line in text.splitlines()] == ["FIELD", "output.export.gguf.enabled", "output.export.gguf.quant"]


def test_a_list_is_shown_with_what_its_items_have() -> None:
    text = shown(explain_name("dataset.additional", Tier.ADVANCED))
    assert text.startswith("spec.dataset.additional\n")
    assert "\ndataset.additional[].weight 0.01 to 100" in text
    assert shown(explain_name("dataset.additional.weight", Tier.ADVANCED)).startswith("spec.dataset.additional[].weight\n")


def test_lists_by_tier() -> None:
    """A-13: most people stop at general."""
    everything, general = shown(explain_job(Tier.ADVANCED)), shown(explain_job(Tier.GENERAL))
    assert {line.split()[0] for line in everything.splitlines() if line} >= set(job_fields())
    assert "\ntraining.learningRate " in general
    assert "training.maxGradNorm" not in general
    assert "training.maxGradNorm" not in shown(explain_name("training", Tier.OPTIONAL))


@pytest.mark.parametrize(
    ("written", "meant"),
    [("training.learnigRate", "training.learningRate"), ("bachSize", "training.batchSize"), ("warmupstep", "training.warmupSteps")],
)
def test_an_unknown_name_is_answered_with_the_nearest(written: str, meant: str) -> None:
    with pytest.raises(CliError, match=rf"spec has no field {written}; did you mean .*{meant}") as unknown:
        explain_name(written, Tier.ADVANCED)
    assert unknown.value.advice == "kubectl finetune explain lists all fields."


def test_a_name_like_no_other_is_only_refused() -> None:
    with pytest.raises(CliError, match=r"spec has no field zzzz$"):
        explain_name("zzzz", Tier.ADVANCED)
