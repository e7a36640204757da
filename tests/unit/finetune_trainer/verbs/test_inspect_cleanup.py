"""inspect and cleanup."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import StoreConfig
from finetune_api.contract.store import CheckpointRef, UsageSeconds
from finetune_trainer.store.base import Store
from finetune_trainer.store.checkpoints import claim_attempt
from finetune_trainer.store.heartbeat import Heartbeat, write_heartbeat
from finetune_trainer.store.ledger import manifest_key
from finetune_trainer.store.local import LocalStore
from finetune_trainer.verbs.cleanup import run_cleanup
from finetune_trainer.verbs.command_line import parse
from finetune_trainer.verbs.inspect import run_inspect
from tests.support.ledgers import FILES, make_attempt, make_manifest
from tests.unit.finetune_trainer.verbs.conftest import VerbPod


@pytest.fixture
def store(verb_pod: VerbPod) -> LocalStore:
    """The job's store with one attempt and three checkpoints, the last one cut short."""
    made = LocalStore(verb_pod.directory / "store/team/job")
    claim_attempt(made, make_attempt(1))
    for step in (100, 200, 300):
        add_checkpoint(made, step)
    made.put("a1/checkpoint-300/optimizer.pt", b"cut")
    write_heartbeat(made, Heartbeat(attempt=1, step=320))
    return made


def add_checkpoint(store: Store, step: int) -> None:
    for name in FILES:
        store.put(f"a1/checkpoint-{step}/{name}", b"0123456789")
    store.put(manifest_key(1, step), make_manifest(1, step).to_json().encode())


def test_inspect_names_the_checkpoint_to_go_on_from(verb_pod: VerbPod, store: LocalStore) -> None:
    """Design §4: the operator's eyes; damaged checkpoints are listed with what is missing."""
    assert run_inspect(verb_pod.environment(), deep=False) == 0
    message = verb_pod.message
    assert message.checkpoint == CheckpointRef(attempt=1, step=200)
    assert message.step == 320
    assert message.final_uri is None
    assert message.result is not None
    newest = message.result["checkpoints"]
    assert isinstance(newest, list)
    assert newest[0]["missing"] == ["optimizer.pt"]
    assert "training would go on from a1/checkpoint-200" in message.message


def test_deep_inspection_reads_the_files(verb_pod: VerbPod, store: LocalStore) -> None:
    assert run_inspect(verb_pod.environment(), deep=True) == 0
    assert verb_pod.message.checkpoint is None


def test_inspect_answers_a_wish(verb_pod: VerbPod, store: LocalStore) -> None:
    run_inspect(verb_pod.environment({"checkpoint": {"resumeFrom": "checkpoint-300"}}), deep=False)
    result = verb_pod.message.result
    assert result is not None
    assert "optimizer.pt is missing or cut short" in str(result["resumeFromProblem"])


def test_inspect_of_a_finished_job(verb_pod: VerbPod, store: LocalStore) -> None:
    store.put("final/manifest.json", b"{}")
    run_inspect(verb_pod.environment(), deep=False)
    assert verb_pod.message.final_uri == store.url("final")


def test_inspect_of_an_empty_store(verb_pod: VerbPod) -> None:
    assert run_inspect(verb_pod.environment(), deep=True) == 0
    assert verb_pod.message.checkpoint is None
    assert verb_pod.message.attempt is None


def test_a_long_history_fits_into_the_message(verb_pod: VerbPod, store: LocalStore) -> None:
    for step in range(1000, 1100):
        add_checkpoint(store, step)
    assert run_inspect(verb_pod.environment(), deep=False) == 0
    assert verb_pod.message.result is not None
    assert verb_pod.message.result["checkpointCount"] == 103


def test_cleanup_deletes_the_jobs_objects_only(verb_pod: VerbPod, store: LocalStore) -> None:
    store.put("pinned.json", b"{}")
    store.put("prepared/key/train/x.arrow", b"x")
    store.put("somebody-elses/file", b"x")
    assert run_cleanup(verb_pod.environment(), dry_run=True, older_than=None) == 0
    assert "would be deleted" in verb_pod.message.message
    assert store.get("pinned.json") == b"{}"
    assert run_cleanup(verb_pod.environment(), dry_run=False, older_than=None) == 0
    assert [info.key for info in store.list()] == ["somebody-elses/file"]
    assert verb_pod.message.result is not None
    assert verb_pod.message.result["foreign"] == 1
    assert run_cleanup(verb_pod.environment(), dry_run=False, older_than=None) == 0


def age(store: LocalStore, directory: Path, prefix: str, days: float) -> None:
    """Make objects look as if they had been written some days ago."""
    for info in store.list(prefix):
        moment = info.modified.timestamp() - days * 86400
        os.utime(directory / info.key, (moment, moment))


def test_cleanup_of_what_is_old_never_halves_a_checkpoint(verb_pod: VerbPod, store: LocalStore) -> None:
    """``--older-than``: what belongs together is as old as its youngest object."""
    directory = verb_pod.directory / "store/team/job"
    store.put("prepared/key/train/x.arrow", b"x")
    store.put("prepared/key/manifest.json", b"{}")
    store.put("logs/attempt-1/pod-0.log", b"x")
    for prefix in ("a1/checkpoint-100/", "a1/checkpoint-200/optimizer.pt", "prepared/key/train/", "logs/"):
        age(store, directory, prefix, 40)
    age(store, directory, "a1/checkpoint-300/", 20)
    assert run_cleanup(verb_pod.environment(), dry_run=False, older_than=timedelta(days=30)) == 0
    left = {info.key for info in store.list()}
    assert not any(key.startswith(("a1/checkpoint-100/", "logs/")) for key in left)
    assert {"a1/checkpoint-200/optimizer.pt", "a1/checkpoint-300/manifest.json", "prepared/key/train/x.arrow", "attempts/1.json"} <= left
    assert "younger ones stay" in verb_pod.message.message


@pytest.mark.parametrize(("text", "age_"), [("30d", timedelta(days=30)), ("12h", timedelta(hours=12)), ("90m", timedelta(minutes=90))])
def test_ages(text: str, age_: timedelta) -> None:
    assert parse(["cleanup", "--older-than", text]).older_than == age_
    assert parse(["cleanup"]).older_than is None


@pytest.mark.parametrize("text", ["30", "d", "-1d", "0d", "1w", "1.5d"])
def test_ages_that_are_none(text: str) -> None:
    with pytest.raises(SystemExit):
        parse(["cleanup", "--older-than", text])


def test_inspect_tells_what_was_used(verb_pod: VerbPod, store: LocalStore) -> None:
    """The operator takes usage over from here when reports are missing."""
    write_heartbeat(store, Heartbeat(attempt=1, step=320, usage=UsageSeconds(productive=7)))
    assert run_inspect(verb_pod.environment(), deep=False) == 0
    assert verb_pod.message.usage == UsageSeconds(productive=7)


def test_cleanup_never_empties_a_whole_bucket(tmp_path: Path) -> None:
    pod = VerbPod(tmp_path, StoreConfig(uri="s3://bucket"))
    assert run_cleanup(pod.environment(), dry_run=False, older_than=None) == 42
    assert pod.message.failure_class == FailureClass.CONFIGURATION


@pytest.mark.parametrize(("arguments", "name", "program"), [(["train"], "train", None), (["worker"], "worker", "finetune_trainer.worker")])
def test_verbs(arguments: list[str], name: str, program: str | None) -> None:
    verb = parse(arguments)
    assert (verb.name, verb.program) == (name, program)
    assert parse(["cleanup", "--dry-run"]).flags == {"dry_run"}
    with pytest.raises(SystemExit):
        parse(["fly"])
