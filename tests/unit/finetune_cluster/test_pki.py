import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from finetune_cluster.node.layout import API_SERVICE_IP, NODE_IP
from finetune_cluster.node.pki import LEAVES, Leaf, issue_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node") / "pki"
    issue_all(folder)
    return folder


def read(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.name)
def test_every_certificate_is_signed_by_its_authority_and_names_its_holder(folder: Path, leaf: Leaf) -> None:
    certificate = read(folder, leaf.name)
    certificate.verify_directly_issued_by(read(folder, leaf.authority))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == leaf.common_name
    assert [group.value for group in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == (
        [leaf.group] if leaf.group else []
    )


def test_the_store_and_the_api_trust_different_authorities(folder: Path) -> None:
    with pytest.raises(ValueError, match="Issuer"):
        read(folder, "etcd-client").verify_directly_issued_by(read(folder, "ca"))


def test_the_api_server_may_be_reached_by_node_and_service_address(folder: Path) -> None:
    names = read(folder, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    assert {ipaddress.ip_address(NODE_IP), ipaddress.ip_address(API_SERVICE_IP)} <= set(addresses)


def test_keys_are_readable_by_their_owner_only(folder: Path) -> None:
    keys = list(folder.glob("*.key"))
    assert len(keys) == len(LEAVES) + 3
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_an_existing_cluster_keeps_its_keys(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    issue_all(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
