"""Credentials and the embedded store (L-05, X-02)."""

from __future__ import annotations

import base64

import pytest

from tests.unit.helm.chart import EXTERNAL, MATRIX, NAMESPACE, Helm, Manifest, of_kind, one


def storage_secrets(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """Decoded keys of the store's Secret by namespace."""
    return {
        secret["metadata"]["namespace"]: {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        for secret in of_kind(manifests, "Secret")
        if secret["metadata"]["name"] == "finetune-storage"
    }


def test_generated_credentials_are_the_same_everywhere(default_manifests: list[Manifest]) -> None:
    """Each job namespace and the release's own get one and the same access, and the store takes it."""
    secrets = storage_secrets(default_manifests)
    assert set(secrets) == {"default", NAMESPACE}
    assert secrets["default"] == secrets[NAMESPACE]
    keys = secrets["default"]
    assert (len(keys["AWS_ACCESS_KEY_ID"]), len(keys["AWS_SECRET_ACCESS_KEY"])) == (20, 40)
    assert keys["AWS_ENDPOINT_URL"] == "http://finetune-minio.finetune-system.svc:9000"
    assert keys["AWS_REGION"] == "us-east-1"
    minio = one(default_manifests, "Deployment", "finetune-minio")["spec"]["template"]["spec"]["containers"][0]
    references = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in minio["env"] if "valueFrom" in v}
    assert references["MINIO_ROOT_USER"] == {"name": "finetune-storage", "key": "AWS_ACCESS_KEY_ID"}
    assert references["MINIO_ROOT_PASSWORD"] == {"name": "finetune-storage", "key": "AWS_SECRET_ACCESS_KEY"}


def test_two_installations_do_not_share_credentials(helm: Helm, default_manifests: list[Manifest]) -> None:
    """Generated, not built in."""
    assert storage_secrets(helm.template())["default"] != storage_secrets(default_manifests)["default"]


def test_given_credentials_make_a_reproducible_rendering(helm: Helm) -> None:
    """What a GitOps tool renders twice is the same twice."""
    values = {"storage": {"embedded": {"accessKeyId": "gitops", "secretAccessKey": "from-a-sealed-secret"}}}
    assert helm.template(values) == helm.template(values)


def test_the_store_restarts_when_its_credentials_change(helm: Helm) -> None:
    """MinIO reads them at its start only."""

    def checksum(secret: str) -> str:
        values = {"storage": {"embedded": {"accessKeyId": "gitops", "secretAccessKey": secret}}}
        template = one(helm.template(values), "Deployment", "finetune-minio")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/credentials"])

    assert checksum("first-secret") == checksum("first-secret")
    assert checksum("first-secret") != checksum("other-secret")


def test_own_secret_for_the_embedded_store(helm: Helm) -> None:
    """The chart cannot read it, so it makes none for the jobs either."""
    manifests = helm.template(MATRIX["store-with-own-secret"])
    assert storage_secrets(manifests) == {}
    minio = one(manifests, "Deployment", "finetune-minio")["spec"]["template"]["spec"]["containers"][0]
    assert {v["valueFrom"]["secretKeyRef"]["name"] for v in minio["env"] if "valueFrom" in v} == {"minio-root"}


def test_external_store_without_keys(helm: Helm) -> None:
    """No MinIO, no Secret."""
    manifests = helm.template(EXTERNAL)
    assert storage_secrets(manifests) == {}
    assert [m["metadata"]["name"] for m in manifests if "minio" in m["metadata"]["name"]] == []


def test_external_store_with_keys(helm: Helm) -> None:
    """The Secret of the jobs has all that reaches the store, its CA included."""
    (keys, *_) = storage_secrets(helm.template(MATRIX["external-store-with-keys"])).values()
    assert keys == {
        "AWS_ACCESS_KEY_ID": "AKIA0",
        "AWS_SECRET_ACCESS_KEY": "0123456789",
        "AWS_ENDPOINT_URL": "https://s3.example.com",
        "AWS_REGION": "eu-west-1",
        "ca.crt": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    }


@pytest.mark.parametrize(
    ("case", "volume"),
    [
        ("defaults", {"persistentVolumeClaim": {"claimName": "finetune-minio"}}),
        ("store-without-volume", {"emptyDir": {"sizeLimit": "20Gi"}}),
        ("store-with-own-claim", {"persistentVolumeClaim": {"claimName": "data"}}),
    ],
)
def test_where_the_data_is(helm: Helm, case: str, volume: Manifest) -> None:
    """A claim that outlives the release, one of the user's, or none."""
    manifests = helm.template(MATRIX[case])
    volumes = one(manifests, "Deployment", "finetune-minio")["spec"]["template"]["spec"]["volumes"]
    assert next(v for v in volumes if v["name"] == "data") == {"name": "data", **volume}
    claims = of_kind(manifests, "PersistentVolumeClaim")
    assert len(claims) == (case == "defaults")
    for claim in claims:
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_bucket_is_a_directory_made_before_the_server_starts(helm: Helm) -> None:
    """No client, credential or hook is needed to create it: the kubelet makes the directory it mounts."""
    manifests = helm.template({"storage": {"embedded": {"bucket": "my-bucket"}}})
    spec = one(manifests, "Deployment", "finetune-minio")["spec"]["template"]["spec"]
    (init,) = spec["initContainers"]
    assert init["volumeMounts"] == [{"name": "data", "mountPath": "/bucket", "subPath": "my-bucket"}]
    assert {"name": "data", "mountPath": "/data"} in spec["containers"][0]["volumeMounts"]


def test_a_new_operator_leaves_the_store_alone(helm: Helm) -> None:
    """L-05: an upgrade of the operator or trainer image does not restart the store under running jobs."""
    storage = {"storage": {"embedded": {"accessKeyId": "gitops", "secretAccessKey": "from-a-sealed-secret"}}}

    def template(version: str) -> Manifest:
        images = {"operator": f"r.example.com/operator:{version}", "trainer": f"r.example.com/trainer:{version}", "minio": "minio:1"}
        return dict(one(helm.template({**storage, "image": images}), "Deployment", "finetune-minio")["spec"]["template"])

    assert template("1") == template("2")
