"""Whether anybody can encrypt with a certificate, now and later, and which views are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from keyserver.app import hygiene_of
from keyserver.model import Kind, Proof, View
from keyserver.usable import End, end_of, ends_by, unusable, withheld
from support.openpgp import CREATED, make

DAY = 86400
KIT = hygiene_of()[Kind.OPENPGP]
NOW = CREATED + 10 * DAY


def proof(now: int = NOW, **options: Any) -> Proof:
    return KIT.prove(KIT.merge([make(**options).octets], b""), now)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, ""),
        ({"encryption": None}, "it has no key for encryption that is valid now"),
        ({"expires": DAY}, "it is expired"),
        ({"revoked": 2}, "it is revoked"),
        ({"subkey_expires": DAY}, "it has no key for encryption that is valid now"),
        ({"subkeys_revoked": 2}, "it has no key for encryption that is valid now"),
    ],
)
def test_now(options: dict[str, Any], why: str) -> None:
    one = proof(**options)
    assert unusable(one) == why
    assert withheld(one, View()) == ""
    assert (why in withheld(one, View(usable_only=True))) is True
    assert bool(withheld(one, View(usable_only=True))) is bool(why)


def test_later() -> None:
    assert ends_by(proof(), NOW, NOW + 10_000 * DAY) == ""
    expiring = proof(expires=20 * DAY)
    assert (ends_by(expiring, NOW, NOW + 9 * DAY), ends_by(expiring, NOW, NOW + 10 * DAY)) == ("", "it expires")
    assert end_of(proof(), NOW) is None
    assert end_of(expiring, NOW) == End(CREATED + 20 * DAY, "it expires")
    assert end_of(proof(expires=30 * DAY, subkey_expires=20 * DAY), NOW) == End(
        CREATED + 20 * DAY, "its key for encryption expires"
    )
    subkey = proof(subkey_expires=20 * DAY)
    assert ends_by(subkey, NOW, NOW + 9 * DAY) == ""
    assert ends_by(subkey, NOW, NOW + 10 * DAY) == "its key for encryption expires"
