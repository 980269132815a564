"""HKP without sockets: lookup parameters, and the machine-readable index.

HKP is draft-shaw-openpgp-hkp-00 (2003), kept as "legacy" in draft-ietf-openpgp-hkp. What differs from the text, because
of what its readers do, is said at each function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from keyserver.model import Malformed, Proof, UserId, Validity

MAX_FIELDS = 32
"""Parameters in one query string; real clients send at most five."""

UNREADABLE = "\N{REPLACEMENT CHARACTER}"

_NOT_UTF8 = re.compile(  # JavaScript's escape() writes what is beyond Latin-1 as %u4F60
    UNREADABLE + r"|%u[0-9A-Fa-f]{4}|[\ud800-\udfff]"
)
_RAW = frozenset(range(0x20, 0x7F)) - {ord("%"), ord(":")}
_ESCAPED = tuple(chr(n) if n in _RAW else f"%{n:02X}" for n in range(256))


@dataclass(frozen=True, slots=True)
class Parameters:
    """The query string of `/pks/lookup` (draft-shaw-openpgp-hkp-00 §3.1, §3.2), decoded but not yet believed."""

    op: str | None = None  # lower case; None: not given
    search: str | None = None
    options: frozenset[str] = frozenset()  # lower-case words; those that we do not know do no harm
    exact: bool = False
    readable: bool = True  # False: the search is not UTF-8 and cannot name anything

    @property
    def machine(self) -> bool:
        """Was `options=mr` asked for?"""
        return "mr" in self.options

    @property
    def for_people(self) -> bool:
        """Is a page asked for, which shows S/MIME certificates too?"""
        return self.op in ("index", "vindex") and not self.machine


def parameters(query: str) -> Parameters:
    """Read a raw query string: any order, form decoding, the first of what is given twice. Raises Malformed.

    Octets that are not UTF-8, raw or escaped, become U+FFFD and make the search unreadable, never an error here:
    GnuPG itself sends such bytes for an address with a `%` in it, and clients written in JavaScript send `%u4F60`.
    """
    try:
        fields = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Malformed(f"more than {MAX_FIELDS} parameters") from None
    given: dict[str, str] = {}
    for name, value in fields:
        given.setdefault(name, value)
    op, search = given.get("op"), given.get("search")
    words = (word.strip().lower() for word in given.get("options", "").split(","))
    readable = search is None or _NOT_UTF8.search(search) is None
    return Parameters(
        op=op.strip().lower() if op and op.strip() else None,
        search=search,
        options=frozenset(word for word in words if word),
        exact=given.get("exact", "").strip().lower() == "on",
        readable=readable,
    )


def escape(text: str) -> str:
    """A user ID as a field of the index.

    `%`, `:`, controls and every octet beyond ASCII are escaped as the draft wants it (§5.2); `@ < > +` and space stay
    as they are, because one client looks for the bare address in the escaped field.
    """
    return "".join(_ESCAPED[octet] for octet in text.encode("utf-8", "replace"))


def pub_line(proof: Proof, now: int) -> str:
    """`pub:<fingerprint>:<algorithm>:<bits>:<created>:<expires>:<flags>` (draft-shaw-openpgp-hkp-00 §5.2).

    The draft leaves the order of flags open and allows a key ID; we send r before e, never d, and always the whole
    fingerprint in upper case, which every known reader takes.
    """
    revoked = proof.validity is Validity.REVOKED
    expired = proof.validity is Validity.EXPIRED or (proof.expires is not None and proof.expires <= now)
    times = f"{proof.created}:{_time(proof.expires)}"
    return f"pub:{proof.fingerprint}:{proof.algorithm}:{proof.bits}:{times}:{_flags(revoked, expired)}"


def uid_line(user_id: UserId, now: int) -> str:
    """`uid:<escaped user ID>:<created>:<expires>:<flags>` (draft-shaw-openpgp-hkp-00 §5.2)."""
    expired = user_id.expires is not None and user_id.expires <= now
    times = f"{user_id.created}:{_time(user_id.expires)}"
    return f"uid:{escape(user_id.text)}:{times}:{_flags(user_id.revoked, expired)}"


def write_index(proofs: Iterable[Proof], now: int) -> str:
    """The whole machine-readable index, beginning with `info:1:<number of pub lines>`.

    Certificates without a (non-empty) user ID are left out: a widespread reader needs a `uid` line after each `pub`.
    """
    lines: list[str] = []
    count = 0
    for proof in proofs:
        user_ids = [u for u in proof.user_ids if u.text]
        if user_ids:
            count += 1
            lines.append(pub_line(proof, now))
            lines.extend(uid_line(u, now) for u in user_ids)
    return "\n".join([f"info:1:{count}", *lines, ""])


def _time(instant: int | None) -> str:
    return "" if instant is None else str(instant)


def _flags(revoked: bool, expired: bool) -> str:
    return "r" * revoked + "e" * expired
