"""Keys and certificates of the local node: one authority for the API, one for etcd."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from finetune_cluster.node.layout import API_SERVICE_IP, NODE_IP, NODE_NAME

_LIFETIME = dt.timedelta(days=3650)
_CLOCK_SKEW = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate to be issued: who it names, and where a server with it may be reached."""

    name: str
    authority: str
    common_name: str
    group: str = ""
    names: Sequence[str] = ()
    addresses: Sequence[str] = ()


LEAVES = (
    Leaf("etcd", "etcd-ca", "etcd", names=("localhost",), addresses=("127.0.0.1",)),
    Leaf("etcd-client", "etcd-ca", "kube-apiserver"),
    Leaf(
        "apiserver",
        "ca",
        "kube-apiserver",
        names=("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"),
        addresses=(NODE_IP, API_SERVICE_IP, "127.0.0.1"),
    ),
    Leaf("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", "system:masters"),
    Leaf("kubelet", "ca", f"system:node:{NODE_NAME}", "system:nodes", names=(NODE_NAME,), addresses=(NODE_IP,)),
    Leaf("controller-manager", "ca", "system:kube-controller-manager"),
    Leaf("scheduler", "ca", "system:kube-scheduler"),
    Leaf("proxy", "ca", "system:kube-proxy"),
    Leaf("dns", "ca", "finetune:dns", "system:masters"),
    Leaf("volumes", "ca", "finetune:volumes", "system:masters"),
    Leaf("admin", "ca", "finetune-admin", "system:masters"),
)


def issue_all(folder: Path) -> None:
    """Make every key and certificate of a new cluster; those of an existing one stay as they are."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authorities = {name: _issue_authority(folder, name) for name in ("ca", "etcd-ca")}
    for leaf in LEAVES:
        certificate, key = authorities[leaf.authority]
        _issue_leaf(folder, leaf, certificate, key)
    key = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "service-accounts.key", key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-accounts.pub").write_bytes(public)
    (folder / "complete").touch()


def _issue_authority(folder: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"finetune-{name}")])
    usage = _key_usage(signs_certificates=True)
    builder = _builder(subject, subject, key.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(folder, name, certificate, key)
    return certificate, key


def _issue_leaf(folder: Path, leaf: Leaf, issuer: x509.Certificate, issuer_key: ec.EllipticCurvePrivateKey) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.group))
    builder = _builder(x509.Name(attributes), issuer.subject, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    places: list[x509.GeneralName] = [x509.DNSName(name) for name in leaf.names]
    places += [x509.IPAddress(ipaddress.ip_address(address)) for address in leaf.addresses]
    if places:
        builder = builder.add_extension(x509.SubjectAlternativeName(places), critical=False)
    _write_pair(folder, leaf.name, builder.sign(issuer_key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(folder / f"{name}.key", key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
