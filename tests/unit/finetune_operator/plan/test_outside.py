"""What trainer pods get to reach the world outside."""

from __future__ import annotations

from finetune_api.contract import env
from finetune_operator.plan.outside import build_outside_environment, trust_source
from finetune_operator.settings import PlanSettings

PLAIN = PlanSettings(version="1", trainer_image="image", storage_bucket="bucket", progress_url="https://operator")


def variables(settings: PlanSettings) -> dict[str, str]:
    """Name -> value."""
    return {entry["name"]: entry["value"] for entry in build_outside_environment(settings)}


def test_nothing_by_default() -> None:
    assert variables(PLAIN) == {}
    assert trust_source(PLAIN) is None


def test_the_cluster_is_never_asked_through_a_proxy() -> None:
    settings = PLAIN.model_copy(update={"trainer_https_proxy": "http://proxy:3128", "trainer_no_proxy": ".corp.example"})
    assert variables(settings) == {
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "localhost,127.0.0.1,.svc,.cluster.local,.corp.example",
    }


def test_the_ca_bundle_is_an_optional_file() -> None:
    settings = PLAIN.model_copy(update={"trainer_ca_configmap": "corporate-cas", "trainer_ca_key": "bundle.pem"})
    assert variables(settings) == {env.ENV_CA_BUNDLE: f"{env.CA_BUNDLE_DIR}/bundle.pem"}
    assert trust_source(settings) == {"configMap": {"name": "corporate-cas", "optional": True}}
