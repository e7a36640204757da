"""kubectl finetune model pull: the Job it makes, how it is followed, and what becomes of its answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from typer.testing import CliRunner

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.pull import PullConfig, PullResult
from finetune_api.contract.termination import TerminationMessage
from finetune_cli import job_runner
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.cluster import Cluster
from finetune_cli.errors import CliError
from finetune_cli.installation import store_secret
from finetune_cli.job_runner import JobRunner
from finetune_cli.pull import Pull, build_base_model, build_pull
from finetune_cli.short_jobs import Surroundings, read_surroundings
from finetune_operator.plan.pod import build_container, pod_around, trainer_program
from finetune_operator.settings import PlanSettings

ASKED = Pull("org/Tiny-1.5B_x", "v2", "s3://bucket/models/tiny/", "team", "finetune-storage", "hub-token")
HERE = Surroundings("registry/trainer:1", pull_secrets=("pull",), endpoint="http://store:9000", region="eu-1")
RESULT = PullResult(
    uri="s3://bucket/models/tiny",
    commit="c" * 40,
    files=6,
    size_bytes=3_000_000_000,
    kept=0,
    model_type="LLM",
    parameters=7,
    context_length=9,
)


def deployment(**settings: str) -> dict[str, Any]:
    entries = [{"name": f"FINETUNE_OPERATOR_{name}", "value": value} for name, value in settings.items()]
    identity = {"name": "FINETUNE_OPERATOR_IDENTITY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return {"spec": {"template": {"spec": {"containers": [{"env": [identity, *entries]}]}}}}


def test_the_keys_are_those_of_the_installation() -> None:
    """Chart value storage.secretName, of the operator that looks after the namespace; the usual name where nobody says one."""
    others = deployment(WATCH_NAMESPACES="others", STORAGE_SECRET="theirs")
    ours = deployment(WATCH_NAMESPACES="team,more", STORAGE_SECRET="own-keys", TRAINER_IMAGE="trainer")
    assert store_secret([others, ours], "team") == "own-keys"
    assert read_surroundings([others, ours], "team").store_secret == "own-keys"
    assert store_secret([others], "team") == store_secret([], "team") == "finetune-storage"


def test_the_job_is_that_of_a_short_pod() -> None:
    """C-13: as the operator's own: restricted, without API credentials, credentials as optional files, found by the policies of jobs."""
    job, config_map = build_pull(ASKED, HERE)
    name = job["metadata"]["name"]
    assert name.startswith("pull-tiny-1-5b-x-")
    assert config_map["metadata"] == job["metadata"]
    assert job["metadata"]["labels"]["finetune.dev/job"] == ""
    config = PullConfig.model_validate_json(config_map["data"]["config.json"])
    assert (config.contract_version, config.uri, config.target.uri) == (
        CONTRACT_VERSION,
        "hf://org/Tiny-1.5B_x@v2",
        "s3://bucket/models/tiny",
    )
    assert (config.target.endpoint, config.store_secret, config.hub_secret) == ("http://store:9000", "finetune-storage", "hub-token")
    pod = job["spec"]["template"]["spec"]
    settings = PlanSettings(
        version="1",
        trainer_image="registry/trainer:1",
        storage_bucket="bucket",
        progress_url="https://operator",
        image_pull_secrets=("pull",),
    )
    own = pod_around(build_container(trainer_program("registry/trainer:1", "pull", settings), [], settings), [], settings)
    for field in ("restartPolicy", "automountServiceAccountToken", "enableServiceLinks", "securityContext", "imagePullSecrets"):
        assert pod[field] == own[field]
    for field in ("name", "image", "imagePullPolicy", "args", "resources", "securityContext", "terminationMessagePolicy"):
        assert pod["containers"][0][field] == own["containers"][0][field]
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert {key: (secret["secretName"], secret["optional"]) for key, secret in secrets.items()} == {
        "secret-store": ("finetune-storage", True),
        "secret-huggingface": ("hub-token", True),
    }


def test_the_same_question_is_the_same_job() -> None:
    """C-13: asked again it is found; another revision, place or token is another one."""
    name = build_pull(ASKED, HERE).job["metadata"]["name"]
    assert build_pull(ASKED, HERE).job["metadata"]["name"] == name
    others = [
        Pull("org/Tiny-1.5B_x", None, ASKED.target, "team", ASKED.secret, "hub-token"),
        Pull(ASKED.model, "v2", "s3://b/x", "team", "s"),
    ]
    assert len({name, *(build_pull(other, HERE).job["metadata"]["name"] for other in others)}) == 3


@pytest.mark.parametrize(
    ("model", "revision", "target", "said"),
    [
        ("org/tiny", None, "models/tiny", "--to models/tiny is no place in a bucket; write s3://bucket/path"),
        ("org/tiny", None, "s3://bucket", "--to s3://bucket is no place in a bucket"),
        ("org/tiny", None, "s3://bucket/../other", "is no place in a bucket"),
        ("https://huggingface.co/org/tiny", None, "s3://bucket/tiny", "is no model of the hub; write org/name"),
        ("org/tiny", "a b", "s3://bucket/tiny", "is no model of the hub"),
    ],
)
def test_what_cannot_be_pulled_is_refused_here(model: str, revision: str | None, target: str, said: str) -> None:
    """C-13."""
    with pytest.raises(CliError, match=said.replace(".", r"\.")):
        build_pull(Pull(model, revision, target, "team", "finetune-storage"), HERE)


def test_surroundings_are_the_operator_s() -> None:
    """C-13: image, proxy and CA bundle of the installation that looks after the namespace."""
    other = deployment(TRAINER_IMAGE="other", WATCH_NAMESPACES="a,b")
    ours = deployment(
        TRAINER_IMAGE="ours", WATCH_NAMESPACES="team", TRAINER_HTTPS_PROXY="http://proxy:3128", TRAINER_CA_CONFIGMAP="cas",
        STORAGE_ENDPOINT="minio:9000", STORAGE_SECURE="false", IMAGE_PULL_SECRETS="one,two",
    )  # fmt: skip
    here = read_surroundings([other, ours], "team")
    assert here == Surroundings(
        "ours", pull_secrets=("one", "two"), endpoint="http://minio:9000", https_proxy="http://proxy:3128", ca_configmap="cas"
    )
    pod = build_pull(ASKED, here).job["spec"]["template"]["spec"]
    variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert variables[env.ENV_CA_BUNDLE] == f"{env.CA_BUNDLE_DIR}/ca.crt"
    assert next(volume for volume in pod["volumes"] if volume["name"] == "trust")["configMap"] == {"name": "cas", "optional": True}
    with pytest.raises(CliError, match="no operator that looks after namespace away"):
        read_surroundings([other, ours], "away")
    with pytest.raises(CliError, match=r"trainer\.offline"):
        build_pull(ASKED, read_surroundings([deployment(TRAINER_IMAGE="ours", TRAINER_OFFLINE="true")], "team"))


def test_an_entry_of_the_catalogue() -> None:
    """C-02, C-13: what is known of the model, and where it comes from."""
    assert build_base_model("tiny", RESULT, ASKED)["spec"] == {
        "description": f"Pulled from hf://org/Tiny-1.5B_x@{'c' * 40}.",
        "uri": "s3://bucket/models/tiny",
        "type": "LLM",
        "parameters": 7,
        "contextLength": 9,
    }


# --- following ---


def message(failure: FailureClass | None = None, text: str = "") -> str:
    result = RESULT.model_dump(mode="json", by_alias=True) if failure is None else None
    return TerminationMessage(
        contract_version=1, run=0, pod=0, exit_code=0 if failure is None else 42, failure_class=failure, message=text, result=result
    ).to_json()


def ns(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**fields)


def job(condition: str | None = None, uid: str = "uid-1") -> SimpleNamespace:
    conditions = [ns(type=condition, status="True", message="said so")] if condition else None
    return ns(metadata=ns(name="pull-tiny", namespace="team", uid=uid), status=ns(conditions=conditions))


def pod(name: str, phase: str, left: str | None = None, waiting: tuple[str, str] | None = None) -> SimpleNamespace:
    state = ns(
        waiting=ns(reason=waiting[0], message=waiting[1]) if waiting else None, terminated=ns(message=left) if left is not None else None
    )
    return ns(
        metadata=ns(name=name, namespace="team", creation_timestamp=name),
        status=ns(phase=phase, conditions=None, container_statuses=[ns(name="trainer", state=state)]),
    )


class Api:
    """Answers of an API server, in order; the last one stays."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.pods: list[list[Any]] = []
        self.logs: dict[str, list[str]] = {}
        self.created: list[tuple[str, Any]] = []
        self.removed: list[str] = []
        self.taken: list[int] = []
        """Kinds of refusal of the next creations."""

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def list_namespaced_job(self, namespace: str, field_selector: str) -> Any:
        assert (namespace, field_selector) == ("team", "metadata.name=pull-tiny")
        found = self._next(self.jobs)
        return ns(items=[found] if found is not None else [])

    def list_namespaced_pod(self, _: str, label_selector: str) -> Any:
        assert label_selector == "batch.kubernetes.io/job-name=pull-tiny"
        return ns(items=self._next(self.pods))

    def list_namespaced_config_map(self, *_: Any, **__: Any) -> Any:
        return ns(items=[ns(metadata=ns(owner_references=[ns(uid="uid-1")]))])

    def read_namespaced_pod_log(self, name: str, *_: Any, **__: Any) -> Any:
        lines = "".join(f"{json.dumps({'message': line})}\n" for line in self.logs.get(name, [])).encode()
        return ns(stream=lambda amt: iter([lines[:7], lines[7:]]))

    def create_namespaced_job(self, _: str, manifest: Any) -> Any:
        if self.taken:
            raise ApiException(status=self.taken.pop(0), reason="Conflict")
        self.created.append(("job", manifest))
        return job()

    def create_namespaced_config_map(self, _: str, manifest: Any) -> Any:
        self.created.append(("configmap", manifest))

    def delete_namespaced_job(self, name: str, _: str, body: Any) -> None:
        assert body.preconditions.uid == "uid-0"
        self.removed.append(name)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(job_runner, "POLL_SECONDS", 0.0)
    return Api()


def make_runner(api: Api) -> JobRunner:
    made = JobRunner(Cluster(Access(), ApiClient()))
    made._batch = made._core = api  # type: ignore[assignment]
    return made


def test_progress_is_told_line_by_line_until_the_result(api: Api) -> None:
    """C-13: why a pod waits, what it says, each line once, also over a connection that ends early; the second try's answer counts."""
    api.jobs = [job(), job(), job(), job(), job("Complete")]
    api.pods = [
        [],
        [pod("a", "Pending", waiting=("ImagePullBackOff", "no such image"))],
        [pod("a", "Running")],
        [pod("a", "Failed", message(FailureClass.HUB_UNAVAILABLE, "away")), pod("b", "Running")],
        [pod("a", "Failed", message(FailureClass.HUB_UNAVAILABLE, "away")), pod("b", "Succeeded", message())],
    ]
    api.logs = {"a": ["1 of 6 files", "2 of 6 files"], "b": ["6 of 6 files"]}
    told: list[str] = []
    assert PullResult.model_validate(make_runner(api).follow("pull-tiny", "team", told.append)) == RESULT
    assert told == ["a: ImagePullBackOff: no such image", "1 of 6 files", "2 of 6 files", "6 of 6 files"]


@pytest.mark.parametrize(
    ("left", "said", "advice"),
    [
        (message(FailureClass.HUGGING_FACE_AUTH, "the repository is gated"), "the repository is gated", "Accept the model's licence"),
        (None, "ended without a result: said so", "kubectl logs"),
        ("finetune-trainer: error: argument verb: invalid choice: 'pull'", "invalid choice", "--image"),
    ],
)
def test_a_failure_is_the_pod_s_sentence(api: Api, left: str | None, said: str, advice: str) -> None:
    """C-13: gated models, wrong tokens, buckets; and what an image of another version says."""
    api.jobs, api.pods = [job("Failed")], [[pod("a", "Failed", left)]]
    with pytest.raises(CliError, match=said) as caught:
        make_runner(api).follow("pull-tiny", "team", lambda _: None)
    assert advice in caught.value.advice


def test_a_job_under_way_is_joined_and_an_ended_one_made_anew(api: Api) -> None:
    """C-13."""
    objects = build_pull(ASKED, HERE)
    objects.job["metadata"]["name"] = "pull-tiny"
    api.jobs, api.taken = [job()], [409]
    assert make_runner(api).start(objects) is False
    api.created.clear()
    api.jobs, api.taken = [job("Failed", "uid-0"), job("Failed", "uid-0"), None], [409]
    assert make_runner(api).start(objects) is True
    assert api.removed == ["pull-tiny"]
    (_, made), (_, config_map) = api.created
    assert made == objects.job
    (owner,) = config_map["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == ("uid-1", True)


class Models:
    """The catalogue."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri
        self.created: list[tuple[Any, bool]] = []

    def create_cluster_custom_object(self, *arguments: Any, **options: Any) -> None:
        if self.uri is not None:
            raise ApiException(status=409, reason="Conflict")
        self.created.append((arguments[-1], "dry_run" in options))

    def get_cluster_custom_object(self, *_: Any) -> Any:
        return {"spec": {"uri": self.uri}}


def test_no_base_model_unless_asked_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-13: with --register it is tried before the download and made after it; a name that is taken is refused at once."""
    catalogue = Models()
    api.jobs, api.pods = [job("Complete")], [[pod("a", "Succeeded", message())]]

    def connect(_: Access) -> Cluster:
        return Cluster(Access(), ApiClient())

    def begin(self: JobRunner, cluster: Cluster) -> None:
        self._cluster, self._told = cluster, {}
        self._batch = self._core = api  # type: ignore[assignment]
        self._custom = catalogue  # type: ignore[assignment]

    monkeypatch.setattr(Access, "connect", connect)
    monkeypatch.setattr(JobRunner, "__init__", begin)
    monkeypatch.setattr(Api, "list_namespaced_job", lambda self, *_, **__: ns(items=[self._next(self.jobs)]))
    monkeypatch.setattr(Api, "list_namespaced_pod", lambda self, *_, **__: ns(items=self._next(self.pods)))
    words = ["model", "pull", "org/tiny", "--to", "s3://bucket/models/tiny", "--image", "trainer", "-n", "team"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"6 files, 3.0 GB: hf://org/tiny at commit {'c' * 40} is at s3://bucket/models/tiny" in done.output
    assert catalogue.created == []
    done = CliRunner().invoke(app, [*words, "--register", "tiny"])
    assert done.exit_code == 0, done.output
    assert [dry_run for _, dry_run in catalogue.created] == [True, False]
    assert "jobs name it as model.uri ref:tiny" in done.output
    catalogue.uri = "hf://org/other"
    refused = CliRunner().invoke(app, [*words, "--register", "tiny"])
    assert "has the address hf://org/other" in str(refused.exception)
