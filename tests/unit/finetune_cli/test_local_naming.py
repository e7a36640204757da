"""Names of local jobs whose manifests have none."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_cli.errors import CliError
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.local.naming import name_job
from finetune_cli.local.run import prepare_run
from finetune_cli.manifest import Document

NOW = datetime(2024, 12, 1, 14, 30, 52, tzinfo=UTC)
LATER = datetime(2024, 12, 2, tzinfo=UTC)


def make_spec(**more: Any) -> FineTuneJobSpec:
    job: dict[str, Any] = {"model": {"uri": "hf://org/model"}, "dataset": {"uri": "hf://org/data"}, "resources": {"device": "cpu"}}
    return resolve({**job, **more}).spec


def of(**metadata: str) -> Document:
    return Document("job.yaml", {"kind": "FineTuneJob", "metadata": metadata})


@pytest.mark.parametrize("method", ["sft", "pretrain"])
def test_a_job_without_a_name_is_called_after_method_and_time(method: str) -> None:
    """J-01: the original form is the name for people."""
    named = name_job(of(), make_spec(method=method), None, NOW)
    assert (named.name, named.spec.display_name) == (f"{method}-20241201-143052", f"{method}_20241201_143052")


def test_what_the_user_says_wins() -> None:
    """J-01: the user may change it."""
    spec = make_spec(displayName="Mine")
    assert name_job(of(name="demo"), spec, None, NOW) == ("demo", spec)
    assert name_job(of(generateName="mine-"), spec, None, NOW) == ("mine-20241201-143052", spec)
    assert name_job(of(name="demo"), make_spec(), None, NOW).spec.display_name is None


def test_a_job_keeps_its_automatic_name(tmp_path: Path) -> None:
    """J-01: what goes on in a directory is the job that began there."""
    first = name_job(of(), make_spec(), tmp_path, NOW)
    prepare_run(first.name, first.spec, [], LocalDirectory(tmp_path))
    assert name_job(of(), make_spec(), tmp_path, LATER) == first


def test_a_prefix_that_no_name_may_have_is_refused() -> None:
    with pytest.raises(CliError, match=r"job\.yaml: metadata\.generateName: My_ makes My_20241201-143052, and a name must have at most"):
        name_job(of(generateName="My_"), make_spec(), None, NOW)
