from __future__ import annotations

import pytest

from finetune_trainer.store.ledger import read_ledger
from tests.support.pods import Cluster


@pytest.mark.parametrize("kind", ["cluster", "s3_cluster"])
def test_trains_to_the_end(request: pytest.FixtureRequest, kind: str) -> None:
    cluster: Cluster = request.getfixturevalue(kind)
    (pod,) = cluster.start_run()
    code = pod.wait()
    assert code == 0, pod.output()
    ledger = read_ledger(cluster.store)
    assert [c.step for c in ledger.checkpoints] == [5, 10]
