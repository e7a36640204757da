"""The demo's order of events, against a shell that only writes down what it is asked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_cli.access import Access
from finetune_cli.demo import __main__ as demo_program
from finetune_cli.demo import on_cluster
from finetune_cli.demo.on_cluster import ClusterDemo, JobFailedError
from finetune_cli.demo.record import Played, Record
from finetune_cli.demo.results import show_results
from finetune_cli.demo.scene import Scene
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.demo.stages import Stages
from finetune_cli.errors import CliError, JobGoneError
from finetune_cli.job import Job, JobRef
from finetune_cli.store import DirectoryStore
from tests.unit.finetune_cli.builders import make_checkpoint, make_document, make_progress, recording_console

ROOT = Path(__file__).parents[3]
IMAGES = {"operator": "r/operator:1", "trainer": "r/trainer:1", "minio": "r/minio:1"}


class RecordingShell(Shell):
    """Answers commands from a table (words that appear in them -> output or error); everything else is silent success."""

    def __init__(self, answers: Mapping[str, str | Exception] | None = None, **environment: str) -> None:
        self.console = recording_console(width=400)
        super().__init__(self.console, ROOT, {"PATH": "/usr/bin", **environment})
        self.answers = answers or {}
        self.commands: list[str] = []

    def _run(
        self, words: Sequence[str | Path], timeout_seconds: float, stdin: str | None, *, output: int | None, quietly: bool = False
    ) -> str:
        line = " ".join([Path(words[0]).name, *map(str, words[1:])])
        self.commands.append(line)
        answer = next((answer for part, answer in self.answers.items() if part in line), "")
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeCluster:
    """A job with a life of its own: each ``follow`` yields the next chapter."""

    def __init__(self, *chapters: Sequence[Job]) -> None:
        self.chapters = list(chapters)
        self.access = Access("/k")

    def follow(self, _: JobRef) -> Iterator[Job]:
        return iter(self.chapters.pop(0))

    def job(self, ref: JobRef) -> Job:
        raise JobGoneError(str(ref))

    def pods(self, _: JobRef) -> list[str]:
        return []


def job(phase: str, **status: Any) -> Job:
    document = make_document(phase, **status)
    document["metadata"] |= {"name": "sft-lora", "namespace": "default"}
    return Job.of(document)


def attempts(*starts: int) -> list[dict[str, Any]]:
    return [
        {"run": number, "attempt": number, "reason": "Resumed", "startedAt": "t", "fromStep": step}
        for number, step in enumerate(starts, start=1)
    ]


def paused_at(step: int) -> Job:
    pause = {"commandId": "c", "action": "pause", "requestedAt": "t", "saved": True, "step": step, "seconds": {"agree": 1.2, "upload": 0.4}}
    return job(
        "Paused", progress=make_progress(step), checkpoints={"latest": make_checkpoint(step, trigger="pause")}, pause=pause, lastReplicas=1
    )


def make_demo(shell: RecordingShell) -> ClusterDemo:
    return ClusterDemo(Scene.of(ROOT), shell, shell.console)


def test_scene_takes_all_addresses_from_the_manifest() -> None:
    scene = Scene.of(ROOT)
    assert scene.document.name == "sft-lora"
    assert scene.model_directory == Path("out/demo/tiny-llama")
    assert scene.config_map == ("kubernetes-sft", "kubernetes-sft.jsonl")
    assert scene.pause_step(90) == 30


def test_the_demo_runs_from_a_checkout_only(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="is no checkout of this project"):
        Scene.of(tmp_path)


def test_install_uses_the_images_of_this_checkout() -> None:
    shell = RecordingShell({"helm status": CommandFailedError("helm status", 1)})
    make_demo(shell).install(IMAGES)
    assert shell.commands[-1] == (
        "helm upgrade --install finetune helm/finetune-operator --namespace finetune-system --create-namespace --take-ownership --wait "
        "--timeout 5m --hide-notes --set image.operator=r/operator:1 --set image.trainer=r/trainer:1 --set image.minio=r/minio:1"
    )


def test_a_release_left_half_way_is_removed_first() -> None:
    shell = RecordingShell({"helm status": json.dumps({"info": {"status": "pending-install"}})})
    make_demo(shell).install(IMAGES)
    assert [command.split()[1] for command in shell.commands] == ["status", "uninstall", "upgrade"]


def test_data_is_shown_as_the_pipe_a_user_would_type() -> None:
    shell = RecordingShell()
    make_demo(shell).bring_data()
    shown = shell.console.export_text()
    assert "$ kubectl create configmap kubernetes-sft --from-file=kubernetes-sft.jsonl=examples/data/kubernetes-sft.jsonl --dry" in shown
    assert " -o yaml | kubectl apply --server-side -f -" in shown


def test_train_pause_resume_by_kubectl() -> None:
    """The story of issue and README: apply, a third of the steps, scale to 0, acknowledged pause, scale back, success."""
    shell = RecordingShell()
    cluster: Any = FakeCluster(
        [job("Starting"), job("Training", progress=make_progress(10)), job("Training", progress=make_progress(41))],
        [job("Pausing", progress=make_progress(42)), paused_at(42)],
        [job("Training", progress=make_progress(43)), job("Succeeded", progress=make_progress(120), attempts=attempts(0, 42))],
    )
    demo = make_demo(shell)
    demo.apply(cluster)
    demo.follow_to_pause(cluster)
    done = demo.resume(cluster, demo.pause(cluster))
    assert done.phase == "Succeeded"
    assert [" ".join(command.split()[1:4]) for command in shell.commands] == [
        "apply -f examples/sft-lora.yaml",
        "scale finetunejob/sft-lora --replicas=0",
        "get finetunejob sft-lora",
        "get pods -l",
        "scale finetunejob/sft-lora --replicas=1",
    ]
    assert "Paused at step 42" in shell.console.export_text()


def test_a_job_of_an_earlier_demo_is_deleted_first() -> None:
    shell = RecordingShell()
    cluster: Any = FakeCluster()
    cluster.job = lambda _: job("Training")
    make_demo(shell).apply(cluster)
    assert [command.split()[1] for command in shell.commands] == ["annotate", "delete", "apply"]


def test_a_failure_ends_the_demo_with_the_job_that_tells_why() -> None:
    failed = job("Failed", failure={"class": "DataError", "message": "row 7"})
    with pytest.raises(JobFailedError, match="no third of the steps, the job is Failed") as stopped:
        make_demo(RecordingShell()).follow_to_pause(FakeCluster([job("Starting"), failed]))  # type: ignore[arg-type]
    assert stopped.value.job is failed


def test_a_job_that_ends_before_it_could_be_paused_is_no_success() -> None:
    cluster: Any = FakeCluster([job("Succeeded", progress=make_progress(120))])
    with pytest.raises(JobFailedError, match="no pause without pods, the job is Succeeded"):
        make_demo(RecordingShell()).pause(cluster)


def test_a_resume_from_another_step_is_no_success() -> None:
    cluster: Any = FakeCluster([job("Succeeded", attempts=attempts(0, 20))])
    with pytest.raises(JobFailedError, match="resumed from step 20 instead of 42"):
        make_demo(RecordingShell()).resume(cluster, paused_at(42))


def test_a_pause_whose_checkpoint_is_older_is_no_success() -> None:
    pause = {"commandId": "c", "action": "pause", "requestedAt": "t", "saved": False, "step": 42}
    lost = job("Paused", checkpoints={"latest": make_checkpoint(40)}, pause=pause)
    with pytest.raises(JobFailedError, match="paused at step 42, yet the newest checkpoint is of step 40"):
        make_demo(RecordingShell()).pause(FakeCluster([lost]))  # type: ignore[arg-type]


def test_where_no_cluster_is_possible_the_demo_runs_locally() -> None:
    """finetune-cluster says so by exit code 3; any other failure is one."""
    stages = Stages(recording_console())
    assert demo_program.start_cluster(RecordingShell({"finetune-cluster up": CommandFailedError("up", 3)}), stages) is None
    with pytest.raises(CommandFailedError):
        demo_program.start_cluster(RecordingShell({"finetune-cluster up": CommandFailedError("up", 1)}), stages)
    assert demo_program.start_cluster(RecordingShell({"finetune-cluster up": "/home/x/kubeconfig\n"}), stages) == "/home/x/kubeconfig"


LABELS = {"labels": {"finetune.dev/demo": "true"}}
OURS = json.dumps({"metadata": LABELS})
OTHERS = json.dumps({"metadata": {"labels": {"team": "a"}}})
NO_OPERATORS = {"get deployments": json.dumps({"items": []})}
CRD = {"get customresourcedefinition": "customresourcedefinition/finetunejobs.finetune.dev"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of finetune-cluster, and what the demo wrote into the checkout is not removed."""
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    return tmp_path


def down(home: Path, answers: Mapping[str, str | Exception], **environment: str) -> RecordingShell:
    shell = RecordingShell({**answers, "du -sk": "16000000\t."}, FINETUNE_HOME=str(home), **environment)
    demo_program.take_down(shell, home, shell.console)
    return shell


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        ({"get namespace": OTHERS}, "Namespace finetune-system"),
        ({"get namespace": json.dumps({"metadata": {}})}, "Namespace finetune-system"),
        ({**CRD, "get finetunejob ": OTHERS}, "FineTuneJob sft-lora in namespace default"),
        ({"get configmap": OTHERS}, "ConfigMap kubernetes-sft in namespace default"),
        (
            {"get deployments": json.dumps({"items": [{"metadata": {"name": "ft-operator", "namespace": "ml"}}]})},
            "Deployment ft-operator in namespace ml",
        ),
    ],
)
def test_what_no_demo_made_in_a_named_cluster_is_not_taken_over(answers: dict[str, str], named: str) -> None:
    shell = RecordingShell({**answers, **({} if "get deployments" in answers else NO_OPERATORS)})
    demo = ClusterDemo(Scene.of(ROOT), shell, shell.console, context="team")
    with pytest.raises(CliError, match=f"context team .* no demo made it: {named}$") as refused:
        demo.check_ownership(Stages(shell.console))
    assert "KUBE_CONTEXT" in refused.value.advice
    assert all(command.split()[1] == "get" for command in shell.commands)


def test_a_named_cluster_that_is_empty_or_has_an_earlier_demo_is_taken() -> None:
    for found in (NO_OPERATORS, {**NO_OPERATORS, **CRD, "get namespace": OURS, "get finetunejob ": OURS, "get configmap": OURS}):
        shell = RecordingShell(found)
        ClusterDemo(Scene.of(ROOT), shell, shell.console, context="team").check_ownership(Stages(shell.console))


def test_in_a_named_cluster_all_that_is_made_is_marked_and_nothing_is_taken_over() -> None:
    shell = RecordingShell({"helm status": CommandFailedError("helm status", 1)})
    cluster: Any = FakeCluster()
    demo = ClusterDemo(Scene.of(ROOT), shell, shell.console, context="team")
    demo.install(IMAGES)
    demo.bring_data()
    demo.apply(cluster)
    (upgrade,) = [command for command in shell.commands if command.startswith("helm upgrade")]
    assert "--take-ownership" not in upgrade
    assert "--create-namespace" not in upgrade
    assert '"labels": {"finetune.dev/demo": "true"}' in shell.console.export_text()
    assert [command for command in shell.commands if command.startswith("kubectl label")] == [
        "kubectl label configmap kubernetes-sft --namespace default finetune.dev/demo=true --overwrite",
        "kubectl label finetunejob sft-lora --namespace default finetune.dev/demo=true --overwrite",
    ]


def test_down_of_a_named_context_removes_what_bears_the_demos_label(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "of", lambda _, of=Scene.of: of(ROOT))
    ours = {**CRD, "tools helm": "/b/helm\n", "get finetunejob ": OURS, "get configmap": OURS, "get namespace": OURS}
    shell = down(home, ours, KUBE_CONTEXT="lab")
    assert [command for command in shell.commands if " get " not in command and not command.startswith("du ")] == [
        "kubectl --context lab annotate finetunejob sft-lora --namespace default finetune.dev/allow-delete-running=true --overwrite",
        "kubectl --context lab delete finetunejob sft-lora --namespace default --wait",
        "kubectl --context lab delete configmap kubernetes-sft --namespace default",
        "finetune-cluster tools helm",
        "helm uninstall finetune --ignore-not-found --wait --kube-context lab --namespace finetune-system",
        "kubectl --context lab delete namespace finetune-system --wait",
        "finetune-cluster down",
    ]


def test_down_of_a_named_context_leaves_what_others_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "of", lambda _, of=Scene.of: of(ROOT))
    shell = down(home, {**CRD, "get finetunejob ": OTHERS, "get configmap": OTHERS, "get namespace": OTHERS}, KUBE_CONTEXT="lab")
    assert [command for command in shell.commands if " get " not in command and not command.startswith("du ")] == ["finetune-cluster down"]
    assert "Namespace finetune-system stays: no demo made it" in shell.console.export_text()


def test_down_finds_what_the_demo_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBE_CONTEXT may have stood before `make demo` only, and Docker may have come since."""
    monkeypatch.setattr(Scene, "of", lambda _, of=Scene.of: of(ROOT))
    record = Record(home)
    record.add(Played.of({"KUBE_CONTEXT": "team", "KUBECONFIG": "/other", "FINETUNE_HOME": str(home)}, "context"))
    record.add(Played.of({"KUBECONFIG": "/other"}, "node"))
    record.add(Played())
    seen: list[tuple[str, str, str]] = []

    class Watching(RecordingShell):
        def _run(self, words: Sequence[str | Path], *rest: Any, **more: Any) -> str:
            if words[-1] == "down":
                seen.append(tuple(self.environment.get(name, "") for name in ("KUBE_CONTEXT", "KUBECONFIG", "FINETUNE_CLUSTER")))  # type: ignore[arg-type]
            return super()._run(words, *rest, **more)

    shell = Watching({"du -sk": "1\t."}, FINETUNE_HOME=str(home))
    demo_program.take_down(shell, home, shell.console)
    assert seen == [("team", "/other", ""), ("", "/other", "node")]
    assert record.read() == []


def test_a_copy_of_the_kubeconfig_is_not_remembered(home: Path) -> None:
    """`finetune-cluster env` names it, and the next cluster overwrites it."""
    environment = {"KUBE_CONTEXT": "team", "KUBECONFIG": f"{home}/kubeconfig", "FINETUNE_HOME": str(home)}
    assert Played.of(environment, "context") == Played(context="team")
    assert Played.of({**environment, "KUBECONFIG": "/a:/b"}, "context") == Played(context="team", kubeconfig="/a:/b")


def test_down_of_one_cluster_leaves_the_other_demos_on_record(home: Path) -> None:
    record = Record(home)
    record.add(Played(context="team"))
    record.add(Played(provider="kind"))
    down(home, {}, FINETUNE_CLUSTER="kind")
    assert record.read() == [Played(context="team")]


def test_down_keeps_the_record_of_a_cluster_that_could_not_be_ended(home: Path) -> None:
    Record(home).add(Played(provider="kind"))
    with pytest.raises(CommandFailedError):
        down(home, {"finetune-cluster down": CommandFailedError("down", 3)})
    assert Record(home).read() == [Played(provider="kind")]


def test_down_without_any_demo_is_no_error(home: Path) -> None:
    shell = down(home, {"finetune-cluster down": CommandFailedError("down", 3)})
    assert "No demo is on record" in shell.console.export_text()


def test_a_damaged_record_is_named(home: Path) -> None:
    (home / "demos.json").write_text("[{]")
    with pytest.raises(CliError, match=r"demos\.json is damaged"):
        Record(home).read()


def test_down_tells_what_stays_with_its_size_and_how_to_remove_it(home: Path) -> None:
    (home / ".venv").mkdir()
    shown = down(home, {}).console.export_text()
    assert ["16.4", "GB", str(home), "programs,"] in [line.split()[:4] for line in shown.splitlines()]
    assert f"finetune-cluster down --purge; rm -rf {home} {home}/.venv" in shown


def test_the_commands_shown_at_the_end_name_the_cluster_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClusterDemo, "use_cluster", lambda *_: None)
    monkeypatch.setattr(ClusterDemo, "check_ownership", lambda *_: None)
    monkeypatch.setattr(ClusterDemo, "play", lambda *_: None)
    shell = RecordingShell({"status": "context: running\n"}, KUBE_CONTEXT="my team", FINETUNE_HOME=str(home))
    demo = ClusterDemo(Scene.of(ROOT), shell, shell.console, context="my team")
    demo_program.play_on_cluster(demo, "/k", Stages(shell.console), shell.console, shell)
    shown = shell.console.export_text()
    again = f"FINETUNE_HOME={home} KUBE_CONTEXT='my team' "
    assert f'eval "$({again}' in shown
    assert "finetune-cluster env)" in shown
    assert f"{again}make demo-down" in shown
    assert "uv run" not in shown
    assert Record(home).read() == [Played(context="my team")]


def test_a_failed_command_is_named_with_its_code(tmp_path: Path) -> None:
    console = recording_console()
    shell = Shell(console, tmp_path, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(CommandFailedError, match=r"`sh -c 'exit 7'` ended with code 7"):
        shell.run("sh", "-c", "exit 7", timeout_seconds=10)
    with pytest.raises(CliError, match="nothing-of-that-name is not installed"):
        shell.run("nothing-of-that-name", timeout_seconds=10)
    with pytest.raises(CliError, match="did not end within 0 s"):
        shell.capture("sleep", "60", timeout_seconds=0.01)
    assert console.export_text().splitlines()[0] == "$ sh -c 'exit 7'"


def test_stages_add_up() -> None:
    times = iter([0.0, 61.0, 100.0, 104.0])
    console = recording_console()
    stages = Stages(console, clock=lambda: next(times))
    for title in ("Install", "Train"):
        with stages(title):
            pass
    console.print(stages.render())
    lines = [line.split() for line in console.export_text().splitlines()[-3:]]
    assert lines == [["Install", "1m01s"], ["Train", "4s"], ["all", "1m05s"]]


def test_results_need_a_result(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="is empty though the job succeeded"):
        show_results(DirectoryStore(tmp_path), [], recording_console())


def test_results_show_adapter_curve_and_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final/adapter_model.safetensors").write_bytes(b"0" * 1500)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/attempt-1.jsonl").write_text("\n".join(json.dumps({"attempt": 1, "step": s, "loss": 6 / s}) for s in range(1, 11)))
    console = recording_console()
    latest = job("Paused", checkpoints={"latest": make_checkpoint(40)}).status.checkpoints.latest
    assert latest is not None
    show_results(DirectoryStore(tmp_path), [latest], console)
    shown = console.export_text()
    for piece in ("adapter_model.safetensors", "1.5 kB", "loss 6.0000 → 0.6000", "step 40"):
        assert piece in shown


def test_the_demo_uses_programs_of_its_own_environment() -> None:
    assert Path(on_cluster.tool("finetune-cluster")).name == "finetune-cluster"
