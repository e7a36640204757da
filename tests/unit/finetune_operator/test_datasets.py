"""Datasets: looked at once by a pod, and again when that is due; the status says what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract import env
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.look import LookResult
from finetune_api.contract.preflight import DatasetFacts
from finetune_api.models.dataset import DatasetTokens
from finetune_operator.cluster.datasets import DatasetKey
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed_datasets import DatasetFeed
from finetune_operator.reconcile import NEVER
from tests.support.dataset_cluster import DatasetCluster, look_answer, look_failure
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import NAMESPACE, SETTINGS


@pytest.fixture
def cluster() -> DatasetCluster:
    made = DatasetCluster()
    made.add_dataset()
    return made


async def test_a_dataset_is_looked_at_once_and_then_ready(cluster: DatasetCluster) -> None:
    """D-04, D-05: one pod, its answer in the status, and nothing left behind."""
    await cluster.look()
    assert (cluster.found.phase, cluster.says("Ready")[0], cluster.says("Reconciling")[0]) == ("Validating", "False", "True")
    await cluster.rest()
    found = cluster.found
    assert (found.phase, found.examples, found.is_whole, found.format, found.columns) == ("ReadyForTraining", 1200, True, "text", ["text"])
    assert (found.samples, found.digest, found.malformed, found.looks) == (['{"text": "one"}'], "abc", 0, 1)
    assert cluster.says("Ready") == ("True", "Validated", "1200 examples, format text")
    assert (cluster.says("Reconciling")[0], cluster.says("Stalled")[0]) == ("False", "False")
    assert found.observed_generation == 1
    assert cluster.dataset_wake == NEVER
    assert [cluster.api.find(plural) for plural in ("jobs", "pods", "configmaps")] == [[], [], []]
    assert cluster.dataset_manifest["spec"] == {"uri": "configmap://rows/train.jsonl"}
    assert "finalizers" not in cluster.dataset_manifest["metadata"]


async def test_nothing_is_looked_at_twice(cluster: DatasetCluster) -> None:
    """Also not by a new leader."""
    await cluster.rest()
    before = cluster.fingerprint()
    cluster.new_operator()
    await cluster.rest()
    assert cluster.fingerprint() == before
    assert len(cluster.looks_made()) == 1


async def test_the_pod_is_restricted_and_has_the_credentials_as_files() -> None:
    """Pod Security restricted, no API credentials, Secrets mounted; labels that watches and network policies know."""
    cluster = DatasetCluster(SETTINGS.model_copy(update={"image_pull_secrets": ("registry",), "trainer_ca_configmap": "trust"}))
    cluster.add_dataset(
        uri="s3://datasets/rows.jsonl",
        secretRef={"name": "keys"},
        region="us-east-1",
        evalUri="pvc://claim/held-out.jsonl",
        secrets={"huggingface": {"secretRef": {"name": "hub"}}},
    )
    await cluster.look()
    (job,) = cluster.looks_made()
    assert job["metadata"]["name"] == "rows-look-1"
    assert job["metadata"]["labels"] == {
        "finetune.dev/job": "",
        "finetune.dev/dataset": "rows",
        "finetune.dev/run": "1",
        "finetune.dev/component": "look",
        "app.kubernetes.io/managed-by": "finetune-operator",
    }
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 600)
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["automountServiceAccountToken"], pod["restartPolicy"], container["args"]) == (False, "Never", ["look"])
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {f"{env.SECRETS_DIR}/dataset", f"{env.SECRETS_DIR}/huggingface", f"{env.PVC_DIR}/claim", env.CACHE_DIR, "/tmp"} <= mounts
    secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"keys", "hub"}
    assert not any("projected" in volume for volume in pod["volumes"])
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


async def test_lengths_of_rows_are_shown_where_they_were_counted(cluster: DatasetCluster) -> None:
    """E-28."""
    await cluster.rest()
    before = cluster.found
    assert before.tokens is None
    facts = DatasetFacts(format="text", examples=5, is_whole=True, token_rows=5, tokens_p50=40, tokens_p95=90, tokens_max=120)
    cluster.verb_exit["look"] = look_answer(LookResult(dataset=facts))
    cluster.edit_dataset(tokenizer={"uri": "pvc://models/tiny"})
    await cluster.rest()
    assert cluster.found.tokens == DatasetTokens(rows=5, p50=40, p95=90, max=120)
    pod = cluster.looks_made()[1]["spec"]["template"]["spec"]
    assert "models" in [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]


async def test_few_examples_are_a_warning_that_blocks_nothing(cluster: DatasetCluster) -> None:
    """D-06, AC-46."""
    small = LookResult(
        dataset=DatasetFacts(format="text", examples=999, is_whole=True), warnings={"DatasetSmall": "999 examples; at least"}
    )
    cluster.verb_exit["look"] = look_answer(small)
    await cluster.rest()
    assert (cluster.found.phase, cluster.says("DatasetSmall")[0]) == ("ReadyForTraining", "True")
    assert "DatasetSmall" in cluster.story()
    cluster.verb_exit["look"] = look_answer()
    cluster.ask("validate/2")
    await cluster.rest()
    assert [c.type for c in cluster.found.conditions] == ["Ready", "Reconciling", "Stalled"]


async def test_a_fault_of_the_data_is_the_dataset_s_word(cluster: DatasetCluster) -> None:
    """File, line and field; what an earlier look found is not shown beside it."""
    await cluster.rest()
    cluster.verb_exit["look"] = look_failure(FailureClass.DATA, "train.jsonl, line 7: text must be a text, found 3")
    cluster.edit_dataset(split="test")
    await cluster.rest()
    found = cluster.found
    assert (found.phase, found.reason, found.examples, found.samples) == ("Invalid", "DataError", None, [])
    status, reason, message = cluster.says("Ready")
    assert (status, reason) == ("False", "DataError")
    assert message.startswith(
        "train.jsonl, line 7: text must be a text, found 3 When it is mended: annotate with finetune.dev/request=validate/"
    )
    assert (cluster.says("Stalled")[0], cluster.says("Reconciling")[0]) == ("True", "False")
    assert cluster.api.find("jobs") == []
    assert cluster.dataset_wake == NEVER


@pytest.mark.parametrize("kind", [FailureClass.STORAGE_UNAVAILABLE, FailureClass.HUB_UNAVAILABLE, FailureClass.UNKNOWN])
async def test_a_store_that_is_away_is_asked_again(cluster: DatasetCluster, kind: FailureClass) -> None:
    """With back-off; the message says when."""
    cluster.verb_exit["look"] = look_failure(kind, "it does not answer")
    await cluster.rest()
    found = cluster.found
    assert (found.phase, found.reason, found.failures, found.looks) == ("Pending", kind, 1, 1)
    assert cluster.says("Ready")[2] == "it does not answer The next look begins at 2026-11-21T08:00:10Z."
    assert cluster.says("Reconciling")[0] == "True"
    assert cluster.dataset_wake == pytest.approx(10)
    cluster.clock.advance(10)
    await cluster.rest()
    assert cluster.found.failures == 2
    assert cluster.dataset_wake == pytest.approx(20)
    cluster.verb_exit["look"] = look_answer()
    cluster.clock.advance(20)
    await cluster.rest()
    assert (cluster.found.phase, cluster.found.failures, cluster.found.next_look_at) == ("ReadyForTraining", 0, None)
    assert cluster.api.find("jobs") == []


async def test_an_edit_ends_the_waiting(cluster: DatasetCluster) -> None:
    """Whoever corrects an address need not wait for the back-off."""
    cluster.verb_exit["look"] = look_failure(FailureClass.STORAGE_UNAVAILABLE, "away")
    await cluster.rest()
    cluster.verb_exit["look"] = look_answer()
    cluster.edit_dataset(uri="configmap://other/train.jsonl")
    await cluster.rest()
    assert cluster.found.phase == "ReadyForTraining"


async def test_an_edit_of_the_source_is_looked_at_one_of_the_description_is_not(cluster: DatasetCluster) -> None:
    """D-13."""
    await cluster.rest()
    cluster.edit_dataset(description="Better words.", displayName="Rows", origin="upload")
    await cluster.rest()
    assert (len(cluster.looks_made()), cluster.found.phase, cluster.found.observed_generation) == (1, "ReadyForTraining", 2)
    cluster.edit_dataset(format="text")
    await cluster.look()
    assert cluster.found.phase == "Validating"
    await cluster.rest()
    assert (len(cluster.looks_made()), cluster.found.phase, cluster.found.observed_generation) == (2, "ReadyForTraining", 3)
    assert [config.look for config in cluster.told()] == [1, 2]


async def test_an_edit_while_a_pod_looks_begins_anew(cluster: DatasetCluster) -> None:
    """What the pod finds of the old spec is nobody's."""
    await cluster.look()
    cluster.edit_dataset(uri="configmap://other/train.jsonl")
    await cluster.rest()
    told = cluster.told()
    assert [config.spec.uri for config in told] == ["configmap://rows/train.jsonl", "configmap://other/train.jsonl"]
    assert (cluster.found.phase, cluster.found.looks) == ("ReadyForTraining", 1)
    assert cluster.api.find("configmaps") == []


async def test_each_request_acts_once(cluster: DatasetCluster) -> None:
    await cluster.rest()
    cluster.ask("validate/monday")
    await cluster.rest()
    await cluster.rest()
    assert (len(cluster.looks_made()), cluster.found.last_handled_request) == (2, "validate/monday")
    cluster.ask("validate/tuesday")
    await cluster.rest()
    assert len(cluster.looks_made()) == 3
    cluster.ask("retry/1")
    await cluster.rest()
    assert (len(cluster.looks_made()), cluster.found.phase) == (3, "ReadyForTraining")
    assert cluster.event("RequestIgnored") == "retry/1: unknown verb; write validate/<token>"


async def test_a_request_during_a_look_makes_another_one(cluster: DatasetCluster) -> None:
    """The data may have been mended after the pod read it."""
    await cluster.look()
    cluster.ask("validate/now")
    await cluster.rest()
    assert (len(cluster.looks_made()), cluster.found.phase) == (2, "ReadyForTraining")


async def test_a_pod_that_cannot_start_is_said(cluster: DatasetCluster) -> None:
    cluster.waiting_reason = "ImagePullBackOff"
    await cluster.rest()
    assert cluster.says("Ready") == (
        "False",
        "Looking",
        "The pod that looks at the data cannot start: ImagePullBackOff: cannot start",
    )
    cluster.waiting_reason, cluster.cordoned = None, True
    waiting = DatasetCluster()
    waiting.cordoned = True
    waiting.add_dataset()
    await waiting.rest()
    assert "fits on no node: 0/1 nodes are available" in waiting.says("Ready")[2]


async def test_a_spec_that_no_schema_would_take_is_invalid() -> None:
    """Stored before a rule was."""
    cluster = DatasetCluster()
    cluster.add_dataset(uri="s3://bucket/rows.jsonl")
    await cluster.rest()
    assert cluster.found.phase == "Invalid"
    assert "spec.secretRef: is required for s3:// and gs:// data" in cluster.says("Ready")[2]
    assert cluster.looks_made() == []


async def test_an_answer_that_cannot_be_read_is_no_verdict(cluster: DatasetCluster) -> None:
    cluster.verb_exit["look"] = look_answer(LookResult())
    await cluster.rest()
    assert (cluster.found.phase, cluster.found.reason) == ("Pending", "Unknown")
    assert "left no answer" in cluster.says("Ready")[2]


async def test_deleting_a_dataset_leaves_nothing(cluster: DatasetCluster) -> None:
    await cluster.look()
    cluster.api.delete(("datasets", NAMESPACE, "rows"))
    await cluster.rest()
    for _ in range(3):
        cluster.step()
    assert [cluster.api.find(plural) for plural in ("datasets", "jobs", "pods", "configmaps")] == [[], [], [], []]


async def test_what_the_api_server_refuses_is_said(cluster: DatasetCluster) -> None:
    """A name that is taken, a namespace that goes."""
    cluster.api.add("configmaps", {"metadata": {"name": "rows-look-1"}, "data": {}}, namespace=NAMESPACE)
    await cluster.look()
    assert cluster.says("Ready")[1] == "RefusedByCluster"
    assert "ConfigMap" in cluster.says("Ready")[2] or "rows-look-1" in cluster.says("Ready")[2]
    assert cluster.dataset_wake == 30
    gone = DatasetCluster()
    gone.add_dataset()
    gone.api.terminating_namespaces.add(NAMESPACE)
    await gone.look()
    assert gone.says("Ready")[1] == "NamespaceTerminating"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_operator_may_die_between_any_two_calls(moment: str) -> None:
    """Design §7: the same end, one look too many at most, no orphan."""
    plain = DatasetCluster()
    plain.add_dataset()
    await plain.rest()
    writes = sum(call.is_write for call in plain.api.calls)
    for fatal in range(writes):
        cluster = DatasetCluster()
        cluster.add_dataset()
        seen = 0

        def die(call: Call, now: str, fatal: int = fatal) -> None:
            nonlocal seen
            if call.is_write and now == moment:
                seen += 1
                if seen == fatal + 1:
                    raise CrashError

        cluster.api.fault = die
        await cluster.rest()
        await cluster.rest()
        assert cluster.found.phase == "ReadyForTraining"
        assert len(cluster.looks_made()) == 1
        assert [cluster.api.find(plural) for plural in ("jobs", "pods", "configmaps")] == [[], [], []]


# --- the feed ---

KEY, JOB = DatasetKey(NAMESPACE, "rows"), JobKey(NAMESPACE, "demo")


class Ear:
    """A feed and what it said; the job ``demo`` waits for ``rows``."""

    def __init__(self) -> None:
        self.marked: list[object] = []
        self.forgotten: list[DatasetKey] = []
        self.feed = DatasetFeed(
            lambda key, _delay: self.marked.append(key),
            self.forgotten.append,
            waiting_for=lambda namespace, name: [JOB] if (namespace, name) == (NAMESPACE, "rows") else [],
        )

    def hear(self, kind: Any, **status: Any) -> list[object]:
        generation = status.pop("generation", 1)
        manifest = {"metadata": {"namespace": NAMESPACE, "name": "rows", "uid": "1", "generation": generation}, "status": status}
        self.feed.dataset_event(kind, manifest)
        heard, self.marked = self.marked, []
        return heard


def test_events_of_datasets_wake_the_jobs_that_wait() -> None:
    """AC-47: a job goes on by itself; the operator's own writes of other things wake nobody."""
    ear = Ear()
    assert ear.hear(None) == [KEY, JOB]
    assert ear.hear("MODIFIED") == []
    assert ear.hear("MODIFIED", phase="Validating") == [JOB]
    assert ear.hear("MODIFIED", phase="Validating", looks=3) == []
    assert ear.hear("MODIFIED", phase="ReadyForTraining", observedGeneration=1) == [JOB]
    assert ear.hear("MODIFIED", phase="ReadyForTraining", observedGeneration=1, generation=2) == [KEY, JOB]
    assert ear.hear("DELETED") == [JOB]
    assert ear.forgotten == [KEY]


def test_events_of_a_look_wake_its_dataset_alone() -> None:
    ear = Ear()
    ear.hear(None)
    ear.feed.child_event({"metadata": {"namespace": NAMESPACE, "labels": {"finetune.dev/job": "", "finetune.dev/dataset": "rows"}}})
    assert ear.marked == [KEY]
    ear.feed.child_event({"metadata": {"namespace": NAMESPACE, "labels": {"finetune.dev/job": "demo"}}})
    assert ear.marked == [KEY]
    assert (len(ear.feed), list(ear.feed.keys())) == (1, [KEY])
