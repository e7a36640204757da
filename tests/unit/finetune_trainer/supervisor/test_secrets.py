"""Which Secrets messages name: those that the pods mount."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from finetune_api.contract.run_config import RunConfig
from finetune_trainer.supervisor.environment import PodEnvironment, job_secrets
from tests.support.operator_values import make_config


@pytest.mark.parametrize(
    ("installed", "own", "named"),
    [(None, None, "finetune-storage"), ("own-keys", None, "own-keys"), ("own-keys", "mine", "mine")],
)
def test_the_secret_of_the_store_has_the_name_users_know(installed: str | None, own: str | None, named: str) -> None:
    """G-02: the job's, else the installation's (chart value storage.secretName), else the usual one; data without a Secret has the same."""
    config: RunConfig = make_config({"checkpoint": {"secretRef": {"name": own}}} if own else {})
    config = config.model_copy(update={"store": config.store.model_copy(update={"secret": installed})})
    pod = cast("PodEnvironment", SimpleNamespace(secrets_dir=Path("/secrets")))
    secrets = job_secrets(config, pod)
    assert (secrets.store.name, secrets.dataset.name) == (named, named)
