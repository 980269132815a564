"""Links hold 256 bits in one spelling; the store's digests and the second link come from the first."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.invite.tokens import OCTETS, Token, confirm_link, read, withdraw_link

OCTET_STRINGS = st.binary(min_size=OCTETS, max_size=OCTETS)


@given(OCTET_STRINGS)
def test_a_token_reads_as_it_was_written(octets: bytes) -> None:
    token = Token(octets)
    assert len(str(token)) == 43
    assert read(str(token)) == token
    assert token.digest == hashlib.sha256(octets).digest()


@given(OCTET_STRINGS)
def test_the_withdrawal_shows_nothing_of_what_confirms(octets: bytes) -> None:
    token = Token(octets)
    assert token.withdrawal == Token(octets).withdrawal
    assert len(token.withdrawal.octets) == OCTETS
    assert len({token.octets, token.digest, token.withdrawal.octets, token.withdrawal.digest}) == 4


@given(st.text(max_size=60))
def test_whatever_stands_in_a_link_is_a_token_or_none(text: str) -> None:
    token = read(text)
    assert token is None or str(token) == text


@pytest.mark.parametrize("last", "BCDPefhi")
def test_another_spelling_of_the_same_octets_is_none(last: str) -> None:
    """The last character has two bits that say nothing."""
    assert read(str(Token(bytes(32)))) is not None
    assert read("A" * 42 + last) is None


@pytest.mark.parametrize(
    "text", ["", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "+", "A" * 42 + "\n", "\u0661" * 43]
)
def test_what_is_no_token(text: str) -> None:
    assert read(text) is None


def test_a_token_is_not_shown_in_tracebacks() -> None:
    token = Token(bytes(range(32)))
    assert str(token) not in repr(token)
    assert token.octets.hex() not in repr(token)


def test_links() -> None:
    token = Token(bytes(32))
    assert confirm_link("https://optin.example.org/", token) == f"https://optin.example.org/confirm/{'A' * 43}"
    withdrawal = withdraw_link("https://optin.example.org", token.withdrawal)
    assert withdrawal == f"https://optin.example.org/withdraw/{token.withdrawal}"
