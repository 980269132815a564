"""HKP v2 (draft-ietf-openpgp-hkp-01): what is asked, and which servers speak it.

A server of v1 alone answers 404 to whatever it is asked by v2, as one of v2 does where it has nothing. So a host must
have shown that it speaks v2 before its absences count. OPTIONS is the draft's way to ask: 200 with `Allow` at a
category (section 5.1.7). Web servers and proxies that answer OPTIONS alike everywhere are told apart by a category that
does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import quote
from weakref import WeakValueDictionary

from cachetools import FIFOCache, TLRUCache
from yarl import URL

from keyserver.model import Absent, Found, Kind, Outcome
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.http.client import Client, Judge
from keyserver.upstreams.verdict import verdict

METHOD = "hkp v2"
CERTS = "/pks/v2/certs"
KEPT = 86400.0  # seconds for which a host's version is taken for known
AGAIN = 60.0  # the same where the probe said nothing
HOSTS = 1000  # of which the version is remembered
PROBE = 1.0  # seconds at most; never more than half of what the question has

_VERSIONS = {40: "04", 64: "06"}  # by hex digits of a fingerprint
_NOTHING_SAID = frozenset({408, 425, 429})  # statuses below 500 that do not tell what a server speaks
_NOT_SPOKEN = frozenset({400, 403, 405, 501})  # no answers to a good question by v2

_Speaks: TypeAlias = bool | None  # None: nobody knows


def paths_of(query: Query) -> tuple[str, ...]:
    """The path of a query, and another spelling where servers differ; none for what v2 has no words for.

    Identities are whole (section 5.1.1), so free text cannot be asked. hockeypuck wants a slash behind the version of a
    fingerprint, where the draft has none."""
    if query.kind is not Kind.OPENPGP:
        return ()
    match query:
        case ByFingerprint(fingerprint=digits):
            version = _VERSIONS[len(digits)]
            at = f"{CERTS}/by-vfingerprint/{version}"
            return f"{at}{digits}", f"{at}/{digits}"
        case ByKeyId(key_id=digits):
            return (f"{CERTS}/by-keyid/{digits}",)
        case ByAddress():
            return (f"{CERTS}/by-identity/{quote(query.address, safe='', errors='replace')}",)
    return ()


class Version2:
    """HKP v2 of one upstream, with what is known of its hosts."""

    def __init__(self, client: Client, *, sure: bool, clock: Callable[[], float]) -> None:
        """sure: all hosts speak it, as the configuration says; else each is probed first. `clock` gives seconds."""
        self._client = client
        self._sure = sure
        self._clock = clock
        self._speaks: TLRUCache[str, _Speaks] = TLRUCache(
            HOSTS, lambda _, speaks, now: now + (AGAIN if speaks is None else KEPT), timer=clock
        )
        self._spelled: FIFOCache[str, int] = FIFOCache(HOSTS)
        self._probing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ask(self, root: URL, query: Query, asking: Asking, judge: Judge) -> Outcome | None:
        """The outcome by v2; None: this is to be asked by v1. `root`: of the host, without a path."""
        loop = asyncio.get_running_loop()
        until = loop.time() + asking.left
        if not paths_of(query):
            return Absent("HKP v2 has no words for that", remember=False, method=METHOD) if self._sure else None
        if not self._sure:
            speaks = await self._known(root, asking)
            if not speaks:
                return None
            if isinstance(speaks, Absent):
                return speaks
        return await self._fetch(root, query, replace(asking, left=until - loop.time()), judge)

    async def _fetch(self, root: URL, query: Query, asking: Asking, judge: Judge) -> Outcome | None:
        """Ask in the draft's spelling, and behind a 404 in the other, unless the host is known to read the first."""
        host = root.raw_host or ""
        read = self._spelled.get(host)  # the number of the spelling in which it has found something
        paths = list(enumerate(paths_of(query)))
        paths = paths[:1] if read == 0 else paths[::-1] if read else paths
        outcome: Outcome | None = None
        until = asyncio.get_running_loop().time() + asking.left
        for number, path in paths:
            statuses: list[int] = []

            def noted(status: int, headers: Mapping[str, str], body: bytes, seen: list[int] = statuses) -> Outcome:
                seen.append(status)
                return judge(status, headers, body)

            left = replace(asking, left=until - asyncio.get_running_loop().time())
            outcome = replace(await self._client.ask(_at(root, path), left, noted), method=METHOD)
            if not self._sure and _NOT_SPOKEN.intersection(statuses):
                self._speaks[host] = None  # what it said to the probe is not so
                return None
            if isinstance(outcome, Found) and len(paths_of(query)) > 1:
                self._spelled[host] = number
            if not isinstance(outcome, Absent) or not statuses:
                break
        return outcome

    async def _known(self, root: URL, asking: Asking) -> _Speaks | Absent:
        """Does this host speak v2? Probed where that is not known, once for all who ask meanwhile. Absent: no host."""
        host = root.raw_host or ""
        if host in self._speaks:
            return self._speaks[host]
        lock = self._probing.setdefault(host, asyncio.Lock())
        within = min(PROBE, asking.left / 2)
        try:
            async with asyncio.timeout(within), lock:
                if host not in self._speaks:
                    found = await self._probe(root, replace(asking, left=within))
                    if isinstance(found, Absent):
                        return found
                    self._speaks[host] = found
                return self._speaks.get(host)
        except TimeoutError:
            self._speaks.setdefault(host, None)
            return None

    async def _probe(self, root: URL, asking: Asking) -> _Speaks | Absent:
        """Ask the host; None where its answers tell nothing."""
        there = await self._options(root, f"{CERTS}/by-identity", asking)
        if not isinstance(there, tuple):
            return there if isinstance(there, Absent) else None
        speaks = _says_yes(*there)
        if not speaks:
            return speaks
        elsewhere = await self._options(root, f"{CERTS}/by-nothing", asking)
        if not isinstance(elsewhere, tuple):
            return None
        anywhere = _says_yes(*elsewhere)
        return None if anywhere is None else not anywhere

    async def _options(self, root: URL, path: str, asking: Asking) -> tuple[int, str] | Outcome:
        """Status and `Allow` of the answer to OPTIONS; without an answer why there is none."""
        answers: list[tuple[int, str]] = []

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
            answers.append((status, headers.get("Allow", "")))
            return verdict(status, headers, body, self._clock())

        outcome = await self._client.ask(_at(root, path), asking, judge, method="OPTIONS")
        return answers[0] if answers else outcome


def _says_yes(status: int, allow: str) -> _Speaks:
    """Is there something at a path, by the answer to OPTIONS? None: that answer does not tell."""
    if status in _NOTHING_SAID or (status >= 500 and status != 501):
        return None
    return status in (200, 204) and "GET" in allow.upper().replace(",", " ").split()


def _at(root: URL, path: str) -> URL:
    return URL(f"{root}{path}", encoded=True)
