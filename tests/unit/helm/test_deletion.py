"""The policy against deleting a running job (Q-09, AC-03)."""

from __future__ import annotations

import re

from finetune_api.lifecycle import PHASES
from finetune_api.models.status import Phase
from tests.unit.helm.chart import Helm, of_kind


def test_deletion_is_refused_in_every_phase_whose_pods_may_hold_work(helm: Helm) -> None:
    """A queued job's pods have not started: nothing would be lost."""
    (policy,) = of_kind(helm.template({}), "ValidatingAdmissionPolicy")
    running = next(variable["expression"] for variable in policy["spec"]["variables"] if variable["name"] == "running")
    assert set(re.findall(r'"(\w+)"', running)) == {phase.value for phase, row in PHASES.items() if row.holds_pods} - {Phase.QUEUED.value}
