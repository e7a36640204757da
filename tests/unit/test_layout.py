"""The shape of the repository: folders that must not become packages, modules that must not hide the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manifests import ROOT

PROJECTS = ("operator", "crds", "cli", "cluster", "monitoring", "trainer-image")


@pytest.mark.parametrize("project", PROJECTS)
def test_project_folders_are_no_packages(project: str) -> None:
    assert not (ROOT / project / "__init__.py").exists()


def test_operator_is_the_standard_library_even_from_the_root() -> None:
    """``operator/__init__.py`` would break every ``import collections`` started from here."""
    code = "import operator; print(operator.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(Path(sys.base_prefix))


@pytest.mark.parametrize("project", PROJECTS)
def test_top_level_packages_do_not_shadow_the_standard_library(project: str) -> None:
    packages = {path.name for path in (ROOT / project / "src").iterdir() if path.is_dir()}
    assert packages
    assert packages & set(sys.stdlib_module_names) == set()
