"""Certificates of the progress endpoint: a CA of ten years, a server certificate of ninety days renewed at sixty.

Pure: bytes in, bytes out, the time is an argument. What is kept is the data of one Secret; what is published is the bundle of CAs a trainer
should trust (the current one, and the one before while a rotation is under way).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
CA_RENEW_BEFORE = timedelta(days=365)
OVERLAP = timedelta(days=30)
"""How long the CA before is still published after a rotation."""
LEAF_LIFETIME = timedelta(days=90)
LEAF_RENEW_BEFORE = timedelta(days=30)

CA_CERT, CA_KEY, CA_BUNDLE = "ca.crt", "ca.key", "ca-bundle.crt"
TLS_CERT, TLS_KEY = "tls.crt", "tls.key"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything in the TLS Secret, PEM."""

    ca_cert: bytes
    ca_key: bytes
    ca_bundle: bytes
    """CAs trainers trust: the current one first."""
    tls_cert: bytes
    tls_key: bytes

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Credentials | None:
        """Read a Secret's data; None while it is empty or lacks a part."""
        wanted = (CA_CERT, CA_KEY, CA_BUNDLE, TLS_CERT, TLS_KEY)
        if any(not data.get(key) for key in wanted):
            return None
        return cls(*(data[key] for key in wanted))

    def to_secret(self) -> dict[str, bytes]:
        """Data of the Secret."""
        return {CA_CERT: self.ca_cert, CA_KEY: self.ca_key, CA_BUNDLE: self.ca_bundle, TLS_CERT: self.tls_cert, TLS_KEY: self.tls_key}


def renewed(current: Credentials | None, names: Sequence[str], now: datetime) -> Credentials:
    """Credentials good for now: ``current`` itself while nothing is due, else with what is due made anew.

    ``names`` are the DNS names and IP addresses the server certificate must carry; a certificate for others is replaced.
    """
    if current is None:
        ca_cert, ca_key = _new_ca(now)
        tls_cert, tls_key = _new_leaf(ca_cert, ca_key, names, now)
        return Credentials(ca_cert, ca_key, ca_cert, tls_cert, tls_key)
    authority = x509.load_pem_x509_certificate(current.ca_cert)
    if authority.not_valid_after_utc - now < CA_RENEW_BEFORE:
        ca_cert, ca_key = _new_ca(now)
        tls_cert, tls_key = _new_leaf(ca_cert, ca_key, names, now)
        return Credentials(ca_cert, ca_key, ca_cert + current.ca_cert, tls_cert, tls_key)
    bundle = current.ca_bundle
    if bundle != current.ca_cert and now - authority.not_valid_before_utc > OVERLAP:
        bundle = current.ca_cert
    leaf = x509.load_pem_x509_certificate(current.tls_cert)
    if leaf.not_valid_after_utc - now >= LEAF_RENEW_BEFORE and set(names) <= _names_of(leaf):
        return (
            current
            if bundle == current.ca_bundle
            else Credentials(current.ca_cert, current.ca_key, bundle, current.tls_cert, current.tls_key)
        )
    tls_cert, tls_key = _new_leaf(current.ca_cert, current.ca_key, names, now)
    return Credentials(current.ca_cert, current.ca_key, bundle, tls_cert, tls_key)


def _new_ca(now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator progress CA")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _builder(name, name, key, now, CA_LIFETIME)
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(usage, critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return _pem(certificate.add_extension(identifier, critical=False).sign(key, hashes.SHA256())), _key_pem(key)


def _new_leaf(ca_cert: bytes, ca_key: bytes, names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    authority = x509.load_pem_x509_certificate(ca_cert)
    signer = serialization.load_pem_private_key(ca_key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "the CA's key is ours"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    certificate = (
        _builder(subject, authority.subject, key, now, LEAF_LIFETIME)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + lifetime)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        *alternatives.get_values_for_type(x509.DNSName),
        *(str(address) for address in alternatives.get_values_for_type(x509.IPAddress)),
    }


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
