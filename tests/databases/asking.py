"""What is asked of a kept database, and what came of it: the same questions to the release that made it and to this."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from urllib.parse import quote

Get: TypeAlias = Callable[[str, int], Awaitable[tuple[int, dict[str, str], bytes]]]
"""One request to the n-th HTTP listener: status, headers, body."""

Answers: TypeAlias = dict[str, dict[str, str]]
"""Question -> view -> the status, and a digest of what came with it."""

VIEWS = ("default", "mailflow")
CONFIG = """
[cache]
ttl = "999 days"
negative_ttl = "1 day"
prefetch = false
[mailflow]
authserv_id = "mx.kept.example"
[smime]
trust_anchors = "none"
[[upstream]]
name = "one"
url = "hkp://127.0.0.1:{port}"
timeout = "1s"
[[view]]
name = "mailflow"
hkp_listen = ["127.0.0.1:0"]
ldap_listen = []
answer_mailflow = true
"""
"""The part of the configuration by which is answered."""


async def answers(get: Get, terms: Sequence[str]) -> Answers:
    """What each view says of each term: of OpenPGP, and of an address in S/MIME certificates."""
    found: Answers = {}
    for term in terms:
        found[term] = {view: await _said(get, n, f"/pks/lookup?op=get&search={term}") for n, view in enumerate(VIEWS)}
        if "@" in term:
            found[f"smime {term}"] = {
                view: await _said(get, n, f"/certificates/search.cgi?email={quote(term)}")
                for n, view in enumerate(VIEWS)
            }
    return found


async def _said(get: Get, listener: int, target: str) -> str:
    status, _, body = await get(target, listener)
    return f"200 {hashlib.sha256(_dearmored(body)).hexdigest()}" if status == 200 else str(status)


def _dearmored(body: bytes) -> bytes:
    """The octets of armored blocks; what has no armor stays."""
    octets = b""
    for block in body.replace(b"\r", b"").split(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")[1:]:
        lines = block.partition(b"\n\n")[2].partition(b"-----END")[0].split(b"\n")
        octets += base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")))
    return octets or body
