"""What one LDAP upstream is asked, and what the replies say together. Runs in a thread, over whichever connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome
from keyserver.query import ByAddress, Query
from keyserver.upstreams.ldap.kinds import (
    PGP_ATTRIBUTES,
    SUBTREE,
    Directory,
    Style,
    discover,
    fill,
    openpgp_filter,
    openpgp_values,
    x509_filter,
    x509_values,
)
from keyserver.upstreams.ldap.link import LdapResult, Link

MAX_PLACES = 4  # naming contexts searched where the URL has no base
_WITH_ENTRIES = (0, 3, 4, 10, 11)  # results whose entries are good; referrals are not followed


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upstream is asked for, over whichever connection; `ask` runs in a thread."""

    base: str
    filter: str
    pgp_attributes: tuple[str, ...]  # configured ones
    x509_attributes: tuple[str, ...]
    keyspace: bool  # may it be asked for OpenPGP at all?

    def wants(self, query: Query) -> bool | None:
        """Whether this query goes to a keyspace (True) or to entries of people (False); None: not askable."""
        if query.kind is Kind.X509:
            return False if isinstance(query, ByAddress) and self.x509_attributes else None
        if isinstance(query, ByAddress) and self.filter and self.pgp_attributes:
            return False
        return True if openpgp_filter(query, Style.GNUPG_2) else None

    def ask(self, link: Link, query: Query, known: Directory | None, via: str) -> tuple[Outcome, Directory]:
        """Find out the server's kind unless it is known, search, and read what came. Raises LinkError."""
        directory = known or discover(link.search, self.base, keyspace=self.keyspace)
        if self.wants(query):
            text = openpgp_filter(query, directory.style)
            if directory.style is Style.NONE or text is None:
                return Absent("it has no OpenPGP keyspace"), directory
            replies = [link.search(directory.keyspace, SUBTREE, text, PGP_ATTRIBUTES, via=via, paged=True)]
            return _outcome(replies, openpgp_values(replies)), directory
        if not isinstance(query, ByAddress):
            return Absent("it cannot be asked that", remember=False), directory
        openpgp = query.kind is Kind.OPENPGP
        names = self.pgp_attributes if openpgp else self.x509_attributes
        text = fill(self.filter, query) if openpgp else x509_filter(query, self.filter, directory.active_directory)
        places = (self.base,) if self.base else directory.contexts[:MAX_PLACES] or ("",)
        replies = []
        for place in places:
            replies.append(link.search(place, SUBTREE, text, names, via=via, paged=True))
        found = openpgp_values(replies, names) if openpgp else x509_values(replies, names)
        return _outcome(replies, found), directory


def _outcome(replies: Sequence[LdapResult], found: Found) -> Outcome:
    """What the searches of one question say together."""
    bad = next((r for r in replies if r.code not in (0, 32) and not (r.code in _WITH_ENTRIES and r.entries)), None)
    if found.raw:
        return found
    if bad is not None:
        return Failed(f"it answered with {bad.reason}", bad.fault)
    if found.damaged:
        return Failed(f"it sent no certificate that could be read: {found.damaged[0]}", Fault.LOCAL)
    if any(reply.looped for reply in replies):
        return Absent("the question went round in a circle", remember=False)
    return Absent("it has no such entry" if not any(r.entries for r in replies) else "its entry has no certificate")
