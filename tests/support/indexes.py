"""Machine-readable indexes of real keyservers beside ours: what they list, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from support.differing import SAME, Found, Tally, proved
from support.running import Gpg

ESCAPES = "the peer escapes otherwise"
AS_GIVEN = "as op=get, which has been judged"
NOT_LISTED = "gpg does not list this user ID either"


@dataclass
class Listed:
    """One `pub` line and its `uid` lines (draft-shaw-openpgp-hkp-00 §5.2)."""

    algorithm: str
    bits: str
    created: str
    expires: str
    flags: str
    users: dict[str, list[str]] = field(default_factory=dict)
    """Text of a user ID without escapes -> created, expires, flags; empty where nothing follows."""


@dataclass
class Index:
    """A whole index."""

    count: int
    keys: dict[str, Listed]


def read(body: bytes) -> Index:
    """Raises ValueError for what no client could read."""
    count, keys = -1, dict[str, Listed]()
    listed: Listed | None = None
    for line in body.decode("utf-8", "replace").splitlines():
        kind, *fields = line.rstrip("\r").split(":")
        if kind == "info":
            count = int(fields[1])
        elif kind == "pub":
            name, algorithm, bits, created, expires, flags, *_ = [*fields, *[""] * 5]
            listed = keys[name.upper()] = Listed(algorithm, bits, created, expires, flags)
        elif kind == "uid" and listed is not None:
            listed.users[unquote(fields[0])] = fields[1:]
    if count < 0:
        raise ValueError("no info line")
    return Index(count, keys)


def judged(folder: Path, certificates: Found) -> dict[str, Listed]:
    """What gpg says of the same certificates (doc/DETAILS of GnuPG): our referee where a peer says something else."""
    keyring = folder / "referee.gpg"
    keyring.write_bytes(b"".join(certificates.values()))
    listing = ("--no-default-keyring", "--keyring", str(keyring), "--with-colons", "--fixed-list-mode", "--list-keys")
    with Gpg(folder / "referee") as gpg:
        lines = [line.split(":") for line in gpg.run(*listing).stdout.splitlines()]
    keys: dict[str, Listed] = {}
    for kind, *fields in lines:
        if kind == "pub":
            listed = Listed(fields[2], fields[1], fields[4], fields[5], fields[0] if fields[0] in ("r", "e") else "")
            primary = True
        elif kind == "fpr" and primary:
            keys[fields[8]] = listed
            primary = False
        elif kind == "uid":
            text = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), fields[8])
            listed.users[text] = [fields[4], fields[5], "r" if fields[0] == "r" else ""]
    return keys


@dataclass
class Given:
    """What `op=get` has given to the same term, and gpg's word."""

    theirs: Found
    ours: Found
    gpg: Mapping[str, Listed]

    def users(self, fingerprint: str) -> set[str]:
        """The user IDs of a certificate in our answer."""
        octets = self.ours.get(fingerprint)
        proof = proved(octets) if octets else None
        return {u.text for u in proof.user_ids} if proof else set()


def compare(tally: Tally, term: str, theirs: Index, ours: Index, given: Given) -> None:
    """Both indexes of one question, key by key and line by line."""
    tally.note(SAME if ours.count == len(ours.keys) else "", f"{term}: we count {ours.count} of {len(ours.keys)}")
    for fingerprint in {*theirs.keys, *ours.keys}:
        mine, other = ours.keys.get(fingerprint), theirs.keys.get(fingerprint)
        if mine is not None and other is not None:
            for reason, what in _lines(other, mine, given.gpg[fingerprint], given.users(fingerprint)):
                tally.note(reason, f"{term}: {fingerprint}: {what}")
        else:
            as_given = (fingerprint in given.theirs, fingerprint in given.ours) == (other is not None, mine is not None)
            tally.note(AS_GIVEN if as_given else "", f"{term}: {fingerprint} {other} {mine}")
    orders = [[k for k in one.keys if k in other.keys] for one, other in ((theirs, ours), (ours, theirs))]
    tally.note(SAME if orders[0] == orders[1] else "certificates in another order", f"{term}: order")


def _lines(theirs: Listed, ours: Listed, gpg: Listed, given: set[str]) -> Iterator[tuple[str, str]]:
    for name in ("algorithm", "bits", "created", "expires", "flags"):
        other, mine, referee = (getattr(one, name) for one in (theirs, ours, gpg))
        reason = f"{name} of a key: gpg says what we say" if mine == referee else ""
        if name == "bits" and ours.algorithm in ("18", "19", "22"):
            reason = "bits: a curve's size is counted otherwise"
        yield (SAME if other == mine else reason), f"{name}: {other!r}, ours {mine!r}"
    for text in {*theirs.users, *ours.users}:
        mine_, other_ = ours.users.get(text), theirs.users.get(text)
        if mine_ is None:
            reason = "" if text in given else AS_GIVEN if text in gpg.users else NOT_LISTED
            escaped = any(text in _otherwise(t) for t in ours.users)
            yield ESCAPES if escaped else reason, f"theirs alone: {text!r}"
        elif other_ is None:
            yield (ESCAPES if _otherwise(text) & theirs.users.keys() else ""), f"ours alone: {text!r}"
        else:
            yield _user(other_, mine_, gpg.users.get(text)), f"{text!r}: {other_}, ours {mine_}"
    orders = [[t for t in one.users if t in other.users] for one, other in ((theirs, ours), (ours, theirs))]
    yield (SAME if orders[0] == orders[1] else "user IDs in another order"), f"order: {orders[0]}, ours {orders[1]}"


def _otherwise(text: str) -> set[str]:
    """What is read of a user ID where a peer leaves its colon, or doubles its per cent sign."""
    return {text.partition(":")[0], text.replace("%", "%%")} - {text}


def _user(theirs: list[str], ours: list[str], gpg: list[str] | None) -> str:
    """Why what stands behind a user ID differs."""
    if theirs == ours:
        return SAME
    if not theirs:
        return "the peer says nothing of user IDs but their text"
    if gpg is None:
        return ""
    created, expires, flags = gpg
    # of what is revoked gpg gives no times
    agreed = (flags and ours[2] == flags) or ours == [created, expires, flags]
    return "a user ID: gpg says what we say" if agreed else ""
