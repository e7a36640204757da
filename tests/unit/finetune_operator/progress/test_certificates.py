from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509

from finetune_operator.progress.certificates import TlsBundle, renewed
from tests.support.fake_api import START

NAMES = ("finetune-operator.finetune.svc", "10.0.0.7")


def leaf(bundle: TlsBundle) -> x509.Certificate:
    return x509.load_pem_x509_certificate(bundle.certificate.encode())


def authorities(bundle: TlsBundle) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(bundle.ca.encode())


@pytest.fixture(scope="module")
def first() -> TlsBundle:
    return renewed(None, NAMES, START)


def days(number: int) -> datetime:
    return START + timedelta(days=number)


def test_a_ca_for_ten_years_and_a_leaf_for_ninety_days(first: TlsBundle) -> None:
    (authority,) = authorities(first)
    assert (authority.not_valid_after_utc - START).days == 3652
    assert (leaf(first).not_valid_after_utc - START).days == 90
    leaf(first).verify_directly_issued_by(authority)
    names = leaf(first).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == set(NAMES)


@pytest.mark.parametrize("day", [0, 30, 59])
def test_what_is_not_due_stays(first: TlsBundle, day: int) -> None:
    assert renewed(first, NAMES, days(day)) == first


def test_the_leaf_is_renewed_at_sixty_days_under_the_same_ca(first: TlsBundle) -> None:
    later = renewed(first, NAMES, days(61))
    assert (later.ca, later.ca_key) == (first.ca, first.ca_key)
    assert later.certificate != first.certificate
    leaf(later).verify_directly_issued_by(authorities(first)[0])


def test_another_name_means_another_leaf(first: TlsBundle) -> None:
    assert renewed(first, ("other.svc",), days(1)).certificate != first.certificate


def test_a_new_ca_is_published_beside_the_old_one_while_the_old_leaf_serves(first: TlsBundle) -> None:
    """Rotation publishes old + new: a trainer trusts the endpoint with either bundle."""
    recent = renewed(first, NAMES, days(3652 - 400))
    rotated = renewed(recent, NAMES, days(3652 - 364))
    new, old = authorities(rotated)
    assert old == authorities(first)[0]
    assert new.public_key() != old.public_key()
    assert rotated.certificate == recent.certificate
    much_later = renewed(rotated, NAMES, days(3652 - 300))
    leaf(much_later).verify_directly_issued_by(new)


def test_an_expired_ca_is_dropped(first: TlsBundle) -> None:
    assert len(authorities(renewed(first, NAMES, days(4000)))) == 1


def test_a_lost_ca_key_makes_a_new_ca(first: TlsBundle) -> None:
    """Somebody emptied part of the Secret: the endpoint serves again, and old bundles still hold the old CA."""
    again = renewed(TlsBundle(first.ca, "", first.certificate, first.key), NAMES, days(1))
    assert len(authorities(again)) == 2
    assert again.ca_key


def test_the_secret_and_back(first: TlsBundle) -> None:
    assert TlsBundle.from_secret(first.to_secret()) == first
    assert TlsBundle.from_secret({}) is None
    assert TlsBundle.from_secret({"tls.crt": "x"}) is None
