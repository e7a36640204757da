import base64
import ipaddress
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from finetune_cluster.home import Home
from finetune_cluster.node import programs
from finetune_cluster.node.layout import API_SERVICE_IP, DNS_SERVICE_IP, NODE_IP, POD_CIDR, SERVICE_CIDR, Layout
from finetune_cluster.node.pki import issue_all
from finetune_cluster.node.processes import Program
from finetune_cluster.node.settings import (
    build_cni_config,
    build_kubelet_config,
    build_proxy_config,
    build_registry_config,
    render_containerd_config,
    render_corefile,
)
from finetune_cluster.node.setup import write_settings

ADDRESS = re.compile(r"(\d+\.\d+\.\d+\.\d+)(?::\d+)?")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(Home(tmp_path), run=tmp_path / "run")


def listening_addresses(layout: Layout) -> set[str]:
    """Collect the addresses of every flag and setting that makes a program listen."""
    folder = Path("/bin")
    flags = [
        word
        for build in (programs.etcd, programs.apiserver, programs.controller_manager, programs.scheduler)
        for word in build(layout, folder).command
        if word.startswith(("--bind-address", "--listen-"))
    ]
    proxy, kubelet = build_proxy_config(layout), build_kubelet_config(layout)
    settings = [proxy["bindAddress"], proxy["healthzBindAddress"], proxy["metricsBindAddress"], *proxy["nodePortAddresses"]]
    settings += [kubelet["address"], build_registry_config(layout)["http"]["addr"]]
    settings += [line for line in render_corefile(layout, has_upstream=True).splitlines() if line.strip().startswith(("bind", "ready"))]
    return {address for text in (*flags, *settings) for address in ADDRESS.findall(text)}


def test_nothing_listens_where_other_machines_could_reach_it(layout: Layout) -> None:
    assert listening_addresses(layout) == {"127.0.0.1", NODE_IP}


def test_node_and_service_addresses_lie_in_their_ranges() -> None:
    pods, services = ipaddress.ip_network(POD_CIDR), ipaddress.ip_network(SERVICE_CIDR)
    assert ipaddress.ip_address(NODE_IP) in pods
    assert {ipaddress.ip_address(DNS_SERVICE_IP), ipaddress.ip_address(API_SERVICE_IP)} <= set(services.hosts())
    assert not pods.overlaps(services)


def test_the_runtime_keeps_to_paths_of_its_own(layout: Layout) -> None:
    config = tomllib.loads(render_containerd_config(layout, "127.0.0.1:5005/finetune/pause:1"))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    paths = [config["root"], config["state"], config["grpc"]["address"], cri["cni"]["conf_dir"], cri["registry"]["config_path"]]
    assert all(Path(path).is_relative_to(layout.home.root) for path in paths)
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == "127.0.0.1:5005/finetune/pause:1"


def test_pods_get_addresses_from_the_range_whose_gateway_is_the_bridge(layout: Layout) -> None:
    bridge = build_cni_config(layout)["plugins"][0]
    assert bridge["ipam"]["ranges"] == [[{"subnet": POD_CIDR, "gateway": NODE_IP}]]
    assert Path(bridge["ipam"]["dataDir"]).is_relative_to(layout.home.node)


def test_the_machines_cgroups_are_taken_as_they_are(layout: Layout) -> None:
    config = build_kubelet_config(layout)
    assert (config["cgroupDriver"], config["failCgroupV1"], config["failSwapOn"]) == ("cgroupfs", False, False)


def test_names_outside_the_cluster_are_forwarded_only_where_there_is_a_name_server(layout: Layout) -> None:
    assert "forward" in render_corefile(layout, has_upstream=True)
    assert "forward" not in render_corefile(layout, has_upstream=False)


def test_the_users_kubeconfig_needs_no_other_file_and_is_private(layout: Layout) -> None:
    issue_all(layout.pki)
    write_settings(layout, "pause:1")
    kubeconfig = yaml.safe_load(layout.home.kubeconfig.read_text())
    authority = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
    assert base64.b64decode(authority) == (layout.pki / "ca.crt").read_bytes()
    assert set(kubeconfig["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert layout.home.kubeconfig.stat().st_mode & 0o077 == 0


def test_writing_the_settings_again_restarts_nothing(layout: Layout) -> None:
    issue_all(layout.pki)

    def fingerprints() -> list[str]:
        write_settings(layout, "pause:1")
        node: list[Program] = [
            build(layout, Path("/bin"))
            for build in (
                programs.etcd,
                programs.apiserver,
                programs.controller_manager,
                programs.scheduler,
                programs.kubelet,
                programs.proxy,
            )
        ]
        return [program.fingerprint() for program in (*node, programs.containerd(layout), programs.dns(layout, Path("/bin")))]

    assert fingerprints() == fingerprints()
