"""The directory tree: what a search's base, scope and filter mean here. Pure.

(root)                                         who we are (RFC 4512 section 5.1)
cn=Subschema
cn=pgpServerInfo                               as PGP.com's keyservers have it
<base>
  cn=pgpServerInfo                             GnuPG's schema, version 2
  ou=PGP Keys        gpgFingerprint=<hex>      OpenPGP certificates
  ou=People          uid=<SHA-256 of the DER>  X.509 certificates
OU=ACTIVE,O=PGP KEYSPACE,C=US                  the same OpenPGP certificates, where PGP.com's clients look
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cachetools import FIFOCache

from keyserver import __version__
from keyserver.faces.ldap.cover import cover, cover_text
from keyserver.faces.ldap.entries import Attributes, AttributeSelection, Node, certificate_nodes, select
from keyserver.faces.ldap.match import MatchBudget, Test, TooCostly, compile_filter
from keyserver.faces.ldap.schema import attribute_types, object_classes, read_dn
from keyserver.model import Answer, Kind, Name, State
from keyserver.query import ByFingerprint, ByText, Query
from keyserver.wire import ldap as wire
from keyserver.wire.dn import BadDn, Dn
from keyserver.wire.ldap import Code, Scope, SearchRequest
from keyserver.wire.ldap_filter import Filter

MAX_ENTRIES = 100
MAX_TERMS = 16  # lookups of one search; Thunderbird asks for two addresses
MAX_REPLY = 4 << 20  # octets
REMEMBERED = 256  # spellings of bases, and choices of attributes
CLASSIC = "OU=ACTIVE,O=PGP KEYSPACE,C=US"
SUBSCHEMA = "cn=Subschema"
UNBOUND = (
    "give a whole e-mail address, fingerprint or 16-digit key ID: this directory is not listed, and parts of names"
    " are not searched"
)


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """A place in the tree that holds certificates of one kind."""

    kind: Kind
    dn: str
    key: Dn
    rdn: str  # attribute that names an entry there, in lower case


@dataclass(frozen=True, slots=True)
class Wanted:
    """One lookup that a search needs, and where in the tree its entries stand."""

    query: Query
    space: Space
    itself: bool = False  # only the entry whose name the base is: without it there is no such object
    name: Name = field(init=False, compare=False)
    key: tuple[str, str, bool] = field(init=False, compare=False)
    """Stands for the three fields above, and is quicker to look up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.query.name)
        object.__setattr__(self, "key", (self.name, self.space.dn, self.itself))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A search that is answered by its result alone."""

    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Sense:
    """What a base, scope and filter mean: the same for everybody, at any time."""

    wanted: tuple[Wanted, ...]
    fixed: tuple[Node, ...]  # entries that are always there, of which the filter is true
    test: Test
    budget: MatchBudget  # of the test
    names: tuple[Name, ...]  # of what is looked up


MeaningKey: TypeAlias = tuple[bytes, AttributeSelection, bool, int]
"""Octets of base, scope and filter, and the fields of a plan that follow: equal for searches with equal replies."""


@dataclass(slots=True)  # frozen, it would take three times as long to make
class SearchPlan:
    """A search understood: what to look up, and how to choose and write what is found."""

    sense: Sense
    selection: AttributeSelection
    types_only: bool
    most: int  # entries
    key: MeaningKey | None = None  # None: its reply is not kept


@dataclass(frozen=True, slots=True)
class SearchReply:
    """What answers a search: SearchResultEntry operations and the result's code."""

    entries: tuple[bytes, ...]
    code: Code
    text: str = ""


Place: TypeAlias = tuple[tuple[Node, ...], tuple[Space, ...], Wanted | None]
"""Fixed entries in scope, spaces in scope, and the certificate that the base names, if it names one."""


class Tree:
    """The tree of one listener."""

    def __init__(self, base: str, *, start_tls: bool, text_search: Callable[[], bool]) -> None:
        self._text_search = text_search
        self._placed: FIFOCache[tuple[str, int], Place] = FIFOCache(REMEMBERED)  # by spelling of the base, and scope
        self._selections: FIFOCache[Hashable, AttributeSelection] = FIFOCache(REMEMBERED)  # by meaning
        below = f",{base}" if base else ""
        keys, people = f"ou=PGP Keys{below}", f"ou=People{below}"
        self._spaces = (
            Space(Kind.OPENPGP, keys, read_dn(keys), "gpgfingerprint"),
            Space(Kind.X509, people, read_dn(people), "uid"),
            Space(Kind.OPENPGP, CLASSIC, read_dn(CLASSIC), "gpgfingerprint"),
        )
        self._base = read_dn(base)
        self._root = _root(base or keys, start_tls)
        self._subschema = Node(
            SUBSCHEMA,
            {
                "objectclass": (b"subschema", b"top"),
                "cn": (b"Subschema",),
                "attributetypes": tuple(attribute_types()),
                "objectclasses": object_classes(),
            },
        )
        self._hidden = {read_dn(SUBSCHEMA): self._subschema}
        self._hidden[read_dn("cn=pgpServerInfo")] = _server_info("cn=pgpServerInfo", CLASSIC)
        nodes = [_container(dn) for dn in (base, keys, people, "O=PGP KEYSPACE,C=US", CLASSIC) if dn]
        nodes += [_server_info(f"cn=pgpServerInfo,{above}", keys) for above in (base, keys) if above]
        nodes += [_server_info(f"cn=pgpServerInfo,{above}", CLASSIC) for above in ("O=PGP KEYSPACE,C=US", CLASSIC)]
        self._fixed = {read_dn(node.dn): node for node in nodes}

    def plan(self, search: SearchRequest) -> SearchPlan | Refusal:
        """What to do for a search, or why it is refused."""
        sense = self.sense(search.base, search.scope, search.filter)
        if isinstance(sense, Refusal):
            return sense
        most = min(search.size_limit or MAX_ENTRIES, MAX_ENTRIES)
        return SearchPlan(sense, self.select(search.attributes), search.types_only, most)

    def select(self, attributes: Iterable[str]) -> AttributeSelection:
        """What an attribute list means. The same meaning is the same object: entries know what they wrote for it."""
        selection = select(attributes)
        return self._selections.setdefault(selection.meaning, selection)

    def sense(self, base: str, scope: int, filter_: Filter) -> Sense | Refusal:
        """What these mean, as they were sent, or why a search with them is refused."""
        placed = self._placed.get((base, scope)) or self._find(base, scope)
        if isinstance(placed, Refusal):
            return placed
        fixed, spaces, itself = placed
        wanted = (itself,) if itself is not None else self._terms(filter_, spaces)
        if isinstance(wanted, Refusal):
            return wanted
        budget = MatchBudget()
        test = compile_filter(filter_, budget)
        try:
            fixed = tuple(node for node in fixed if test(node) is True)
        except TooCostly as problem:
            return Refusal(Code.ADMIN_LIMIT, str(problem))
        return Sense(wanted, fixed, test, budget, tuple(w.name for w in wanted))

    def _find(self, text: str, number: int) -> Place | Refusal:
        """The place that a base and scope, as they were sent, mean."""
        try:
            base = read_dn(text)
        except BadDn as problem:
            return Refusal(Code.INVALID_DN, f"the base is no distinguished name: {problem}")
        if number not in list(Scope):
            return Refusal(Code.PROTOCOL_ERROR, "the scope is base, one level, subtree or children")
        place = self._place(base, Scope(number))
        if place is None:
            return Refusal(Code.NO_SUCH_OBJECT, "")
        if place[2] is None:
            self._placed[text, number] = place
        return place

    def nodes(self, wanted: Wanted, answer: Answer) -> tuple[Node, ...]:
        """The entries that an answer makes."""
        if answer.state is not State.FOUND:
            return ()
        nodes = certificate_nodes(wanted.query, answer.certificates, wanted.space.dn, SUBSCHEMA)
        if wanted.itself:  # a subkey's fingerprint finds a certificate, but is nobody's name
            return tuple(node for node in nodes if f"={wanted.query}," in node.dn)
        return nodes

    def _place(self, base: Dn, scope: Scope) -> Place | None:
        """What a base and scope mean; None: no such object."""
        if not base:
            if scope is Scope.BASE:
                return (self._root,), (), None
            base = self._base
            scope = Scope.SUBTREE if scope is Scope.CHILDREN else scope
        if base in self._hidden:
            return (() if scope in (Scope.ONE, Scope.CHILDREN) else (self._hidden[base],)), (), None
        if base and base not in self._fixed:
            return self._certificate(base, scope)
        length = len(base)
        if scope is Scope.BASE:
            return (self._fixed[base],), (), None
        if scope is Scope.ONE:
            near = tuple(n for dn, n in self._fixed.items() if len(dn) == length + 1 and dn[1:] == base)
            return near, tuple(s for s in self._spaces if s.key == base), None
        below = [(dn, n) for dn, n in self._fixed.items() if len(dn) >= length and dn[len(dn) - length :] == base]
        fixed = tuple(n for dn, n in below if scope is Scope.SUBTREE or dn != base)
        spaces = tuple(s for s in self._spaces if s.key[max(0, len(s.key) - length) :] == base)
        return fixed, spaces if base else self._spaces[:2], None

    def _certificate(self, base: Dn, scope: Scope) -> Place | None:
        """A base that names one certificate's entry, if it has that form."""
        space = next((s for s in self._spaces if s.key == base[1:]), None)
        if space is None or len(base[0]) != 1:
            return None
        ((type_, value),) = base[0]
        if type_ != space.rdn or len(value) not in (40, 64) or not all(c in "0123456789abcdef" for c in value):
            return None
        if scope in (Scope.ONE, Scope.CHILDREN):
            return (), (), None
        return (), (), Wanted(ByFingerprint(value.upper(), space.kind), space, True)

    def _terms(self, filter_: Filter, spaces: Sequence[Space]) -> tuple[Wanted, ...] | Refusal:
        """The lookups that cover the filter in these spaces."""
        if not spaces:
            return ()
        terms = cover(filter_)
        if terms is None:
            if not self._text_search():
                return Refusal(Code.UNWILLING, UNBOUND)
            terms = cover_text(filter_)
        if terms is None:
            terms = frozenset(ByText("", space.kind) for space in spaces)
        wanted = [Wanted(query, space) for query in terms for space in spaces if space.kind is query.kind]
        if len(wanted) > MAX_TERMS:
            return Refusal(
                Code.ADMIN_LIMIT, f"the filter names more than {MAX_TERMS} addresses, fingerprints or key IDs"
            )
        return tuple(sorted(wanted, key=lambda w: w.name))


def choose(plan: SearchPlan, found: Iterable[Sequence[Node]]) -> tuple[Node, ...] | Refusal:
    """The entries of which the filter is true, each once, in order."""
    sense = plan.sense
    test = sense.test
    sense.budget.renew()
    chosen = {node.dn: node for node in sense.fixed}
    try:
        for group in found:
            for node in group:
                if node.dn not in chosen and test(node) is True:
                    chosen[node.dn] = node
    except TooCostly as problem:
        return Refusal(Code.ADMIN_LIMIT, str(problem))
    return tuple(chosen.values())


def write(plan: SearchPlan, nodes: Sequence[Node]) -> SearchReply:
    """Entries as octets, as many as the limits allow."""
    entries: list[bytes] = []
    octets = 0
    for node in nodes[: plan.most]:
        entry = node.encode(plan.selection, plan.types_only)
        octets += len(entry)
        if octets > MAX_REPLY:
            return SearchReply(tuple(entries), Code.ADMIN_LIMIT, f"the reply is larger than {MAX_REPLY} octets")
        entries.append(entry)
    return SearchReply(tuple(entries), Code.SIZE_LIMIT if len(nodes) > plan.most else Code.SUCCESS)


def _root(context: str, start_tls: bool) -> Node:
    extensions = (wire.WHO_AM_I, wire.START_TLS) if start_tls else (wire.WHO_AM_I,)
    return Node(
        "",
        {
            "objectclass": (b"top",),
            "namingcontexts": (context.encode(), CLASSIC.encode()),
            "supportedldapversion": (b"3",),
            "supportedextension": tuple(oid.encode() for oid in extensions),
            "supportedcontrol": (wire.PAGED.encode(),),
            "supportedfeatures": (b"1.3.6.1.4.1.4203.1.5.1",),
            "subschemasubentry": (SUBSCHEMA.encode(),),
            "vendorname": (b"keyserver",),
            "vendorversion": (__version__.encode(),),
        },
    )


def _server_info(dn: str, space: str) -> Node:
    """What keyspace this is. The second half is what PGP.com's clients read."""
    return Node(
        dn,
        {
            "objectclass": (b"pgpServerInfo", b"top"),
            "cn": (b"pgpServerInfo",),
            "pgpbasekeyspacedn": (space.encode(),),
            "pgpsoftware": (b"GnuPG",),
            "pgpversion": (b"2",),
            "basekeyspacedn": (space.encode(),),
            "version": (b"1",),
            "software": (b"keyserver",),
            "subschemasubentry": (SUBSCHEMA.encode(),),
        },
    )


_CLASS_OF = {"dc": b"domain", "o": b"organization", "ou": b"organizationalUnit", "c": b"country"}


def _container(dn: str) -> Node:
    """An entry that only holds others, with what its own name says."""
    type_, _, value = dn.partition(",")[0].partition("=")
    key = type_.strip().lower()
    attributes: Attributes = {
        "objectclass": (_CLASS_OF.get(key, b"extensibleObject"), b"top"),
        **({key: (value.strip().encode(),)} if key in (*_CLASS_OF, "cn", "uid") else {}),
        "subschemasubentry": (SUBSCHEMA.encode(),),
    }
    return Node(dn, attributes)
