"""A local run whose trainer is a script: what it is given, how it is watched, paused and judged."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.contract import metrics as names
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import AttemptRecord, CheckpointRef, FinalManifest, Manifest, StoredFile
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.status import Phase
from finetune_api.resolve import resolve
from finetune_cli.__main__ import app
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.local import run as run_module
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.local.figures import Figures, parse_figures
from finetune_cli.local.observe import Pace, ended_phase, find_failure
from finetune_cli.local.processes import Processes, free_ports
from finetune_cli.local.run import LocalRun, on_device, prepare_run, read_termination, run_to_end, started
from tests.unit.finetune_cli.builders import recording_console

MANIFEST = Manifest(
    contract_version=1,
    attempt=1,
    step=40,
    total_steps=120,
    epoch=0.5,
    created_at="2026-11-01T12:00:00Z",
    trigger="signal",
    kind="lora",
    strategy="none",
    world_size=1,
    pods=1,
    global_batch=8,
    files=[StoredFile(path="adapter_model.safetensors", size=1000, sha256="0")],
)
FINAL = FinalManifest(contract_version=1, kind="lora", step=120, attempt=1, source="last", files=[])
TRAINER = """\
#!{python}
import json, os, signal, sys
from pathlib import Path

config = json.loads(Path(os.environ["FINETUNE_RUN_CONFIG"]).read_text())
store = Path(config["store"]["uri"].removeprefix("file://"))
{body}
"""


def make_spec(**more: Any) -> FineTuneJobSpec:
    job: dict[str, Any] = {"model": {"uri": "hf://org/model"}, "dataset": {"uri": "hf://org/data"}, "resources": {"device": "cpu"}}
    return resolve({**job, **more}).spec


@pytest.fixture
def place(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(tmp_path / "demo")


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the trainer's place."""

    def install(body: str) -> None:
        script = tmp_path / "finetune-trainer"
        script.write_text(TRAINER.format(python=sys.executable, body=body))
        script.chmod(0o755)
        monkeypatch.setattr(run_module, "find_trainer", lambda: str(script))

    return install


class FakeFigures:
    """Figures of a run that is at step 41 of 120."""

    def read(self) -> Figures | None:
        return Figures({names.STEP: 41, names.TOTAL_STEPS: 120, names.LOSS: 4.5, names.ATTEMPT: 2}, "Training")


class FakeProcesses(Processes):
    """Pods that end with given codes after a number of looks."""

    def __init__(self, looks: int, *codes: int) -> None:
        super().__init__([], [])
        self.looks, self.codes = looks, codes
        self.asked: list[str] = []

    def wait(self, seconds: float) -> bool:
        self.looks -= 1
        return self.looks <= 0

    def terminate(self) -> None:
        self.asked.append("terminate")

    def kill(self) -> None:
        self.asked.append("kill")

    @property
    def exit_codes(self) -> list[int | None]:
        return list(self.codes)


def put(store: Path, key: str, text: str) -> None:
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    (store / key).write_text(text)


def observe_all(place: LocalDirectory, processes: FakeProcesses) -> list[Job]:
    return list(LocalRun(prepare_run("demo", make_spec(), [], place), processes, FakeFigures()).observations())


def test_the_run_config_is_what_an_operator_would_write(place: LocalDirectory) -> None:
    spec = make_spec(replicas=2, resources={"device": "cpu", "processesPerReplica": 2})
    prepared = prepare_run("demo", spec, [], place)
    config = place.read_config(1)
    assert config == prepared.config
    assert (config.run, config.topology.world_size, config.topology.master_addr, config.progress) == (1, 4, "localhost", None)
    assert config.store.uri == place.store.as_uri()
    assert [pod.environment["JOB_COMPLETION_INDEX"] for pod in prepared.pods] == ["0", "1"]
    assert len({pod.environment["FINETUNE_WORK_DIR"] for pod in prepared.pods}) == 2
    assert (
        len({pod.environment["FINETUNE_METRICS_PORT"] for pod in prepared.pods} | {prepared.pods[0].environment["FINETUNE_GROUP_PORT"]})
        == 3
    )


def test_pods_share_the_machine_unless_the_shell_says_otherwise(place: LocalDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (first, _) = prepare_run("demo", make_spec(replicas=2), [], place).pods
    assert (first.environment["OMP_NUM_THREADS"], first.environment["OMP_WAIT_POLICY"]) == ("4", "ACTIVE")


def test_a_second_run_goes_on_under_the_next_number(place: LocalDirectory) -> None:
    first = prepare_run("demo", make_spec(), [], place).config
    second = prepare_run("demo", make_spec(logging={"steps": 1}), [], place).config
    assert (second.run, second.job.uid) == (2, first.job.uid)


def test_another_training_in_the_same_directory_is_refused(place: LocalDirectory) -> None:
    """Fields that make a training what it is cannot change once it has begun."""
    prepare_run("demo", make_spec(), [], place)
    with pytest.raises(CliError, match=r"spec\.training\.seed: 42 → 7"):
        prepare_run("demo", make_spec(training={"seed": 7}), [], place)


def test_a_finished_job_is_not_run_again(place: LocalDirectory) -> None:
    put(place.store, "final/manifest.json", FINAL.to_json())
    with pytest.raises(CliError, match=f"this job is finished; its result is in {place.store.as_uri()}/final"):
        prepare_run("demo", make_spec(), [], place)


def test_a_manifest_that_pauses_the_job_has_nothing_to_run(place: LocalDirectory) -> None:
    with pytest.raises(CliError, match="the manifest pauses the job"):
        prepare_run("demo", make_spec(replicas=0), [], place)


def test_another_program_than_the_trainer_is_refused(place: LocalDirectory) -> None:
    """B-02: a TrainingMethod's image is the cluster's."""
    with pytest.raises(CliError, match=r"spec\.methodRef: TrainingMethod own is a program"):
        prepare_run("demo", make_spec(methodRef={"name": "own"}), [], place)


def test_credentials_of_the_shell_reach_the_pods_as_private_files(place: LocalDirectory) -> None:
    place.write_secrets({"HF_TOKEN": "hf_x", "AWS_ACCESS_KEY_ID": "a"})
    token = place.secrets / "huggingface/HF_TOKEN"
    assert token.read_text() == "hf_x"
    assert token.stat().st_mode & 0o077 == 0
    place.write_secrets({})
    assert not token.exists()


def test_only_one_run_at_a_time(place: LocalDirectory) -> None:
    with place.locked(), pytest.raises(CliError, match="a run is under way"), place.locked():
        pass


def test_a_run_is_seen_as_a_job(place: LocalDirectory) -> None:
    """Status comes from the store (checkpoints, attempts, result) and the metrics endpoint (everything live)."""
    put(place.store, "a1/checkpoint-40/manifest.json", MANIFEST.to_json())
    record = AttemptRecord(
        contract_version=1,
        attempt=2,
        run=2,
        pod_uid="u",
        pod_name="p",
        node="n",
        started_at="t",
        parent=CheckpointRef(attempt=1, step=40),
        world_size=1,
    )
    put(place.store, "attempts/2.json", record.to_json())
    running, *_ = jobs = observe_all(place, FakeProcesses(2, 0))
    assert [job.phase for job in jobs] == [Phase.TRAINING, Phase.TRAINING, Phase.SUCCEEDED]
    assert running.status.progress is not None
    assert (running.status.progress.step, running.status.progress.percent, running.status.progress.loss) == (41, 34, 4.5)
    assert running.status.checkpoints.latest is not None
    assert (running.status.checkpoints.latest.step, running.status.checkpoints.latest.size_bytes) == (40, 1000)
    assert [(attempt.reason, attempt.from_step) for attempt in running.status.attempts] == [("Resumed", 40)]


def test_pause_asks_once_and_then_insists(place: LocalDirectory) -> None:
    processes = FakeProcesses(1, 75)
    run = LocalRun(prepare_run("demo", make_spec(), [], place), processes, FakeFigures())
    run.pause()
    run.pause()
    jobs = list(run.observations())
    assert processes.asked == ["terminate", "kill"]
    assert [job.phase for job in jobs] == [Phase.PAUSING, Phase.PAUSED]
    assert jobs[-1].status.reason == "UserRequested"


def test_pods_that_overstay_the_grace_are_ended(place: LocalDirectory) -> None:
    """pausePolicy.graceSeconds (120 by default) counts here as it does in a cluster."""
    now = 1000.0
    processes = FakeProcesses(3, 75)
    run = LocalRun(prepare_run("demo", make_spec(), [], place), processes, FakeFigures(), clock=lambda: now)
    run.pause()
    jobs = run.observations()
    next(jobs)
    now += 119
    next(jobs)
    assert processes.asked == ["terminate"]
    now += 2
    assert [job.phase for job in jobs] == [Phase.PAUSING, Phase.PAUSED]
    assert processes.asked[:2] == ["terminate", "kill"]


@pytest.mark.parametrize(
    ("codes", "phase"),
    [([0, 0], Phase.SUCCEEDED), ([75, 75], Phase.PAUSED), ([0, 75], Phase.PAUSED), ([42, 76], Phase.FAILED), ([-9], Phase.FAILED)],
)
def test_exit_codes_decide_how_it_ended(codes: list[int], phase: Phase) -> None:
    assert ended_phase(codes) is phase


def test_the_cause_is_shown_not_its_consequence() -> None:
    """A lost peer (76) is what a data error (42) in another pod looks like."""
    data = TerminationMessage(
        contract_version=1, run=1, pod=1, exit_code=42, failure_class=FailureClass.DATA, message="row 7", log_lines="Traceback"
    )
    peer = TerminationMessage(
        contract_version=1, run=1, pod=0, exit_code=76, failure_class=FailureClass.PEER_LOST, message="rank 1 went away"
    )
    failure = find_failure([76, 42], [peer, data])
    assert (failure.failure_class, failure.message, failure.last_log_lines) == (FailureClass.DATA, "row 7", "Traceback")
    assert failure.advice.startswith("Mend the named row")


def test_a_trainer_that_was_killed_is_said(place: LocalDirectory) -> None:
    *_, last = observe_all(place, FakeProcesses(1, -9))
    assert last.status.failure is not None
    assert last.status.failure.message == "The trainer was killed before it could say why."


def test_pace_gives_the_time_left() -> None:
    assert Pace(step=10, at=100.0).seconds_left(20, 40, 120.0) == 40
    assert Pace(step=10, at=100.0).seconds_left(10, 40, 120.0) is None


def test_figures_are_read_from_the_exposition_format() -> None:
    text = (
        '# TYPE finetune_train_step gauge\nfinetune_train_step{finetune_job="d",finetune_namespace="n"} 41.0\n'
        '# TYPE finetune_train_phase_info gauge\nfinetune_train_phase_info{finetune_job="d",phase="Evaluating"} 1.0\n'
        '# TYPE finetune_usage_seconds counter\nfinetune_usage_seconds_total{use="starting"} 3.0\n'
    )
    assert parse_figures(text) == Figures({names.STEP: 41.0}, "Evaluating")


def test_device_can_be_chosen_for_this_machine() -> None:
    """L-13: the GPU toggle."""
    spec = resolve({"model": {"uri": "hf://a/b"}, "dataset": {"uri": "hf://a/c"}}).spec
    assert on_device(spec, None).resources.device == "gpu"
    assert on_device(spec, "cpu").resources.device == "cpu"


def test_free_ports_differ() -> None:
    assert len(set(free_ports(4))) == 4


def test_a_real_process_runs_to_its_end(place: LocalDirectory, trainer: Callable[[str], None]) -> None:
    put(place.root, "final.json", FINAL.to_json())
    trainer('(store / "final").mkdir(); (store.parent / "final.json").rename(store / "final/manifest.json"); print("done", sys.argv[1])')
    console = recording_console()
    ended = run_to_end("demo", make_spec(), [], place, console)
    assert ended.phase is Phase.SUCCEEDED
    assert ended.status.artifacts.final_uri == f"{place.store.as_uri()}/final"
    assert (place.run(1) / "pod-0.log").read_text() == "done train\n"


def test_a_failing_trainer_ends_as_a_failed_job(place: LocalDirectory, trainer: Callable[[str], None]) -> None:
    message = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=42, failure_class=FailureClass.MODEL, message="no config.json")
    trainer(f'Path(os.environ["FINETUNE_TERMINATION_MESSAGE"]).write_text({message.to_json()!r}); sys.exit(42)')
    ended = run_to_end("demo", make_spec(), [], place, recording_console())
    assert (ended.phase, ended.status.reason) == (Phase.FAILED, "ModelError")


def test_ctrl_c_pauses_instead_of_ending(place: LocalDirectory, trainer: Callable[[str], None]) -> None:
    """L-15: Ctrl-C saves. The script says that it is ready by a file; the signal goes to this process, as from a terminal."""
    trainer('signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); (store / "ready").touch(); signal.pause()')
    with place.locked():
        prepared = prepare_run("demo", make_spec(), [], place)
        with started(prepared) as run, run_module.paused_by_signals(run):
            seen = []
            for job in run.observations():
                seen.append(job.phase)
                if (place.store / "ready").exists() and Phase.PAUSING not in seen:
                    os.kill(os.getpid(), signal.SIGINT)
    assert seen[-1] is Phase.PAUSED


def test_a_nameless_job_says_how_to_go_on(tmp_path: Path, trainer: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """J-01: it is called after method and time, and so is its directory; a trainer that leaves with 75 has paused."""
    trainer("sys.exit(75)")
    monkeypatch.chdir(tmp_path)
    header = "{apiVersion: finetune.dev/v1alpha1, kind: FineTuneJob, metadata: {}, "
    spec = "spec: {model: {uri: hf://a/b}, dataset: {uri: hf://a/c}, resources: {device: cpu}}}"
    (tmp_path / "job.yaml").write_text(header + spec)
    result = CliRunner().invoke(app, ["run-local", "-f", "job.yaml"])
    (directory,) = (tmp_path / "finetune-local").iterdir()
    assert re.fullmatch(r"sft-[0-9]{8}-[0-9]{6}", directory.name)
    assert f"the job is called {directory.name}." in result.output
    assert f"Paused. The same command with --dir {directory} goes on from here" in result.output
    assert LocalDirectory(directory).read_config(1).job.name == directory.name


def test_no_process_is_left_when_watching_is_given_up(place: LocalDirectory, trainer: Callable[[str], None]) -> None:
    trainer('(store / "pid").write_text(str(os.getpid())); signal.pause()')
    prepared = prepare_run("demo", make_spec(), [], place)
    with started(prepared) as run:
        for _ in run.observations():
            if (place.store / "pid").exists() and (place.store / "pid").read_text():
                break
    with pytest.raises(ProcessLookupError):
        os.kill(int((place.store / "pid").read_text()), 0)


def test_an_unreadable_last_word_is_none(tmp_path: Path) -> None:
    assert read_termination(tmp_path / "missing") is None
    (tmp_path / "half").write_text(json.dumps({"run": 1})[:-1])
    assert read_termination(tmp_path / "half") is None
