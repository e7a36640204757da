"""The endpoint's certificates as values: a CA for ten years, a leaf for ninety days, and when either is due."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3652)
CA_RENEW_BEFORE = timedelta(days=365)
LEAF_LIFETIME = timedelta(days=90)
LEAF_RENEW_BEFORE = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)
CA_NAME = "finetune-operator CA"

KEY_CA, KEY_CA_KEY, KEY_CRT, KEY_KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"


@dataclass(frozen=True, slots=True)
class TlsBundle:
    """Contents of the TLS Secret, PEM."""

    ca: str
    """CA certificates trainers trust: the current one first, then predecessors that have not expired."""
    ca_key: str
    """Key of the current CA; empty when somebody else issues the certificates."""
    certificate: str
    key: str

    @classmethod
    def from_secret(cls, data: Mapping[str, str]) -> TlsBundle | None:
        """Read decoded Secret data; None while certificate or key is missing."""
        if not data.get(KEY_CRT) or not data.get(KEY_KEY):
            return None
        return cls(data.get(KEY_CA, ""), data.get(KEY_CA_KEY, ""), data[KEY_CRT], data[KEY_KEY])

    def to_secret(self) -> dict[str, str]:
        """Secret data, not yet base64."""
        return {KEY_CA: self.ca, KEY_CA_KEY: self.ca_key, KEY_CRT: self.certificate, KEY_KEY: self.key}


def renewed(bundle: TlsBundle | None, names: Sequence[str], now: datetime) -> TlsBundle:
    """The bundle with whatever is due made anew; the same bundle when nothing is.

    A new CA is added in front of the old one; the leaf that the old one signed stays valid until it is renewed, so a trainer trusts the
    endpoint with either bundle.
    """
    authorities = _certificates(bundle.ca) if bundle is not None else []
    ca_key = bundle.ca_key if bundle is not None else ""
    if bundle is None or not ca_key or not authorities or authorities[0].not_valid_after_utc - now < CA_RENEW_BEFORE:
        authority, ca_key = _new_ca(now)
        authorities = [authority, *(old for old in authorities if old.not_valid_after_utc > now)]
    if bundle is not None and _leaf_is_good(bundle.certificate, authorities, names, now):
        certificate, key = bundle.certificate, bundle.key
    else:
        certificate, key = _new_leaf(authorities[0], ca_key, names, now)
    return TlsBundle("".join(map(_pem, authorities)), ca_key, certificate, key)


def _leaf_is_good(pem: str, authorities: Sequence[x509.Certificate], names: Sequence[str], now: datetime) -> bool:
    leaf = _certificates(pem)[0]
    own = {str(name.value) for name in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value}
    return leaf.not_valid_after_utc - now > LEAF_RENEW_BEFORE and own == set(names) and any(_signed_by(leaf, ca) for ca in authorities)


def _signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _new_ca(now: datetime) -> tuple[x509.Certificate, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CA_NAME)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _certificate(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), _key_pem(key)


def _new_leaf(authority: x509.Certificate, ca_key: str, names: Sequence[str], now: datetime) -> tuple[str, str]:
    signer = serialization.load_pem_private_key(ca_key.encode(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey), "the CA's key is made here"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = (
        _certificate(subject, authority.subject, key.public_key(), now, LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return _pem(builder.sign(signer, hashes.SHA256())), _key_pem(key)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode()) if pem.strip() else []


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
