"""CAs, proxies and limits that a trainer process sets up around itself."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from finetune_api.contract.env import ENV_CA_BUNDLE
from finetune_trainer.store.http_pool import http_pool, proxy_for
from finetune_trainer.surroundings import CA_VARIABLES, trust_ca_bundle


def test_the_administrators_cas_are_trusted_where_they_are(tmp_path: Path) -> None:
    """A namespace without the ConfigMap keeps the image's CAs; what the pod says itself wins."""
    variables = {ENV_CA_BUNDLE: str(tmp_path / "ca.crt")}
    trust_ca_bundle(variables)
    assert set(variables) == {ENV_CA_BUNDLE}
    (tmp_path / "ca.crt").write_text("pem")
    variables["REQUESTS_CA_BUNDLE"] = "/own"
    trust_ca_bundle(variables)
    assert {name: variables[name] for name in CA_VARIABLES} == {
        "SSL_CERT_FILE": str(tmp_path / "ca.crt"),
        "REQUESTS_CA_BUNDLE": "/own",
        "CURL_CA_BUNDLE": str(tmp_path / "ca.crt"),
    }


def test_limits_are_raised_to_what_is_allowed() -> None:
    """In a process of its own: limits cannot be taken back."""
    program = (
        "import resource as r; from finetune_trainer.surroundings import raise_limits; "
        "r.setrlimit(r.RLIMIT_NOFILE, (256, r.getrlimit(r.RLIMIT_NOFILE)[1])); raise_limits(); "
        "print(*r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE)[0])"
    )
    soft, hard, core = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert soft == hard == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert core == "0"


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment the operator gives to pods."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1,.svc,.cluster.local,.corp.example")


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://s3.amazonaws.com", "http://proxy:3128"),
        ("http://s3.amazonaws.com", None),
        ("https://minio.finetune.svc:9000", None),
        ("https://git.corp.example/x", None),
        ("https://127.0.0.1:9000", None),
    ],
)
def test_proxies_are_for_what_is_outside(url: str, proxy: str | None) -> None:
    assert proxy_for(url) == proxy
    with http_pool(url) as pool:
        assert isinstance(pool, urllib3.ProxyManager) == (proxy is not None)
