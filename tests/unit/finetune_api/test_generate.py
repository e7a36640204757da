"""The committed files are what the models say."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
import yaml

from finetune_api.__main__ import main
from finetune_api.generate import HEADER, generated_files
from finetune_api.models.partial import JobInput, leaf_fields
from finetune_api.rules import RULES
from tests.support.manifests import ROOT


def test_committed_files_are_current() -> None:
    assert main(["generate", "--check", "--root", str(ROOT)]) == 0


def test_check_names_the_stale_file_and_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = repository(tmp_path)
    assert main(["generate", "--root", str(root)]) == 0
    assert main(["generate", "--check", "--root", str(root)]) == 0
    (root / "crds/presets/sft.yaml").write_text("changed")
    capsys.readouterr()
    assert main(["generate", "--check", "--root", str(root)]) == 1
    assert capsys.readouterr().err == "crds/presets/sft.yaml differs from the models: run `python -m finetune_api generate` and commit it\n"


def test_generate_writes_only_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = repository(tmp_path)
    main(["generate", "--root", str(root)])
    assert capsys.readouterr().out.count("wrote ") == len(generated_files())
    main(["generate", "--root", str(root)])
    assert capsys.readouterr().out == ""


def test_elsewhere_than_in_the_repository_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--root", str(tmp_path)]) == 2
    assert "is not the repository" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_yaml_says_what_made_it_and_reads_back() -> None:
    for path, text in generated_files().items():
        if path.suffix == ".yaml":
            assert text.startswith(HEADER)
            assert yaml.safe_load(text)["metadata"]["name"] == path.stem


def test_reference_has_every_field_and_every_rule() -> None:
    page = generated_files()[PurePosixPath("docs/reference/finetunejob.md")]
    fields = {path for path, _ in leaf_fields(JobInput) if not path.endswith("ecretRef.name")}
    assert {path for path in fields if f"| `{path}`<br>" not in page} == set()
    assert {rule.id for rule in RULES if rule.message not in page} == set()


def repository(tmp_path: Path) -> Path:
    """A folder that looks like the repository to the generator."""
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds/pyproject.toml").touch()
    return tmp_path
