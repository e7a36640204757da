"""A cluster around the fake API server in which Datasets are looked at, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.constants import ANNOTATION_REQUEST, API_VERSION, DATASET_KIND
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_DONE, REACTIONS, FailureClass
from finetune_api.contract.look import LookConfig, LookResult
from finetune_api.contract.preflight import DatasetFacts
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.dataset import DatasetStatus
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.datasets import DatasetKey
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile_dataset import DatasetReconciler
from tests.support.fake_api import CrashError, Manifest
from tests.support.operator_cluster import NAMESPACE, FakeCluster

FOUND = LookResult(
    dataset=DatasetFacts(format="text", examples=1200, is_whole=True),
    columns=["text"],
    samples=['{"text": "one"}'],
    digest="abc",
)


def look_answer(result: LookResult = FOUND, message: str = "1200 examples, format text") -> TerminationMessage:
    """Of a look that passed."""
    return TerminationMessage(
        contract_version=CONTRACT_VERSION,
        run=1,
        pod=0,
        exit_code=EXIT_DONE,
        message=message,
        result=result.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def look_failure(kind: FailureClass, message: str) -> TerminationMessage:
    """Of one that did not."""
    code = REACTIONS[kind].exit_code
    return TerminationMessage(contract_version=CONTRACT_VERSION, run=1, pod=0, exit_code=code, failure_class=kind, message=message)


class DatasetCluster(FakeCluster):
    """The Dataset ``rows`` and, where one is created, a FineTuneJob."""

    dataset = DatasetKey(NAMESPACE, "rows")

    def new_operator(self) -> Any:
        """A fresh process."""
        made = super().new_operator()
        self.datasets = DatasetReconciler(Client(self.api), self.events, settings=self.settings, now=self.clock.now)
        self.dataset_wake: float | None = 0.0
        self.verb_exit.setdefault("look", look_answer())
        return made

    def add_dataset(self, **spec: Any) -> None:
        """Create it."""
        source = {"uri": "configmap://rows/train.jsonl"}
        manifest = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": {"name": "rows"}, "spec": {**source, **spec}}
        self.api.add("datasets", manifest, namespace=NAMESPACE)

    def edit_dataset(self, **spec: Any) -> None:
        """Change it."""
        self.api.change("datasets", NAMESPACE, "rows", {"spec": spec})

    def ask(self, request: str) -> None:
        """Annotate it."""
        self.api.change("datasets", NAMESPACE, "rows", {"metadata": {"annotations": {ANNOTATION_REQUEST: request}}})

    async def look(self) -> None:
        """One reconcile of the Dataset."""
        try:
            self.dataset_wake = await self.datasets.reconcile(self.dataset)
            await self.events.flush()
        except RetryLater as later:
            self.dataset_wake = later.seconds
        except CrashError:
            self.crashes += 1
            self.new_operator()

    async def rest(self, *, rounds: int = 30) -> None:
        """Reconcile the Dataset and step until nothing changes; no time passes."""
        for _ in range(rounds):
            before = self.fingerprint()
            await self.look()
            self.step()
            if self.fingerprint() == before:
                return
        raise AssertionError("the Dataset does not come to rest")

    @property
    def dataset_manifest(self) -> Manifest:
        """As it is stored."""
        found = self.api.get("datasets", "rows")
        assert found is not None
        return found

    @property
    def found(self) -> DatasetStatus:
        """Its status."""
        return DatasetStatus.model_validate(self.dataset_manifest.get("status") or {})

    def says(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of one of its conditions."""
        condition = next(c for c in self.found.conditions if c.type == kind)
        return condition.status, condition.reason, condition.message

    def told(self) -> list[LookConfig]:
        """What each look was told, in order."""
        made = [
            m for plural, kind, m in self.api.history if (plural, kind) == ("configmaps", "ADDED") and "-look-" in m["metadata"]["name"]
        ]
        return [LookConfig.model_validate_json(m["data"]["config.json"]) for m in made]

    def looks_made(self) -> list[Mapping[str, Any]]:
        """Jobs of all looks there ever were."""
        return [m for plural, kind, m in self.api.history if (plural, kind) == ("jobs", "ADDED") and "-look-" in m["metadata"]["name"]]
