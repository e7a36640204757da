"""The in-memory API server answers as the real one does: lives of a job, recorded on the one, replayed on the other (issue 4)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from finetune_operator.cluster.client import KubernetesTransport
from tests.support.operator_cluster import FakeCluster
from tests.support.platform import Kubectl
from tests.support.recorded import Recording, Replay, Step
from tests.unit.finetune_operator.test_crash import SCENARIOS
from tests.unit.finetune_operator.test_faults import SecondLeader, tolerant

SECOND_LEADER_AT = (2, 4, 6, 9)
"""At which write of the first leader another one acts: what the first one sends then is stale."""


@pytest.fixture
async def transport(kubeconfig: object, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTransport]:
    """The operator's own connection to the real API server."""
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    made = await KubernetesTransport.connect()
    yield made
    await made.close()


async def recorded(scenario: str, at: int) -> list[Step]:
    """A life of a job with a second leader for a moment, on the in-memory server."""
    cluster = FakeCluster(name=f"{scenario.replace('_', '-')}-{at}"[:50])
    recording = Recording(cluster)
    cluster.api = SecondLeader(cluster, at).install()
    cluster.reconcile = tolerant(cluster)  # type: ignore[method-assign]
    await SCENARIOS[scenario](cluster)
    await cluster.settle(rounds=200, advance=True)
    return recording.steps


@pytest.mark.parametrize("scenario", ["pause_resume_finish", "gpu_with_preflight_cancelled"])
async def test_recorded_calls_have_the_same_answers(unattended: Kubectl, transport: KubernetesTransport, scenario: str) -> None:
    """Every write of operator, user and trainer, and every read of what they write: the same code and reason on both."""
    codes: set[int] = set()
    for at in SECOND_LEADER_AT:
        told = await Replay(transport, unattended.namespace).run(await recorded(scenario, at))
        assert [got for _, got in told] == [expected for expected, _ in told]
        codes |= {int(expected.split(": ")[1][:3]) for expected, _ in told}
    assert {200, 201, 409} <= codes, "the recordings have refusals too"
