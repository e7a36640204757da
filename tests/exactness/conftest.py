"""One zygote and one tiny model for all exactness tests; rows are prepared once per way of preparing them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.exactness.harness import BASE, DATA, ROOT, Run, Zygote
from tests.support.jobs import merge

MakeRun: TypeAlias = Callable[..., Run]


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Starts workers without paying for their imports each time."""
    process = Zygote(tmp_path_factory.mktemp("zygote") / "log")
    yield process
    process.close()


@pytest.fixture(scope="session")
def sharding_zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Like the other, and knows DeepSpeed, whose import takes its time."""
    process = Zygote(tmp_path_factory.mktemp("zygote") / "log", hidden=("wandb",))
    yield process
    process.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model that examples and e2e tests use."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run([sys.executable, ROOT / "examples/tiny_model.py", directory, "--params", "test"], check=True)
    return directory


@pytest.fixture(scope="session")
def prepared() -> dict[str, Path]:
    """Prepared rows by what they depend on."""
    return {}


@pytest.fixture(scope="session")
def make_run(zygote: Zygote, model: Path, prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Make a job from changes to the base spec; several of one test share nothing but prepared rows."""
    return _maker(zygote, model, prepared, tmp_path_factory)


@pytest.fixture(scope="session")
def make_sharded(sharding_zygote: Zygote, model: Path, prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Make a job for any strategy."""
    return _maker(sharding_zygote, model, prepared, tmp_path_factory)


def _maker(zygote: Zygote, model: Path, prepared: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    def make(spec: Mapping[str, Any] | None = None, *, model_dir: Path = model, data: Path = DATA) -> Run:
        full = merge(BASE, spec or {})
        key = json.dumps(
            [full.get("method"), full["dataset"], full["training"]["maxSeqLength"], full["training"].get("seed")], sort_keys=True
        )
        run = Run(zygote, tmp_path_factory.mktemp("run") / "job", model_dir, spec or {}, prepared.get(key), data)
        prepared[key] = run.prepared
        return run

    return make
