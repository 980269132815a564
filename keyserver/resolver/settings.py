"""The settings that decide answers as a document, and rules out of such a document again.

It is what the history keeps, so that an answer of then can be made by the rules of then. No secret is in it: no URL,
password or limit, only what policy goes by.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Failed, Outcome, UpstreamSpec, View
from keyserver.policy import Terms
from keyserver.query import Query
from keyserver.resolver.rules import Rules
from keyserver.upstreams.base import Asking

TABLES = {"upstream": UpstreamSpec, "view": View, "domain": DomainRule}
"""Each row of these has a key of its own, `upstream keys.example.org`: so an event can say which is another."""

_NOT_HERE: Mapping[type, frozenset[str]] = {
    UpstreamSpec: frozenset({"timeout", "rate", "id_rate"}),  # how it is asked
    Terms: frozenset({"upstreams", "domains"}),  # tables
    Rules: frozenset(
        {
            *("terms", "upstreams", "views"),  # tables
            *("deadline", "max_certificate", "searches", "prefetch", "purge_interval", "revocation_interval"),
        }
    ),
}
"""Members that do not decide answers, or have their own keys."""


@dataclass(slots=True)
class Silent:
    """An upstream of then, as `Upstream`: nobody asks it any more."""

    spec: UpstreamSpec

    def target(self, query: Query) -> str:
        """Itself."""
        return self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Never called."""
        return Failed("it is asked no more")

    async def close(self) -> None:
        """Nothing is open."""


def settings_document(rules: Rules) -> Mapping[str, object]:
    """What of these rules decides answers, as JSON can say it."""
    document = {**_members(rules.terms), **_members(rules)}
    for spec in rules.terms.upstreams.values():
        document[f"upstream {spec.name}"] = _members(spec)
    for rule in rules.terms.domains:
        document[f"domain {rule.name}"] = _members(rule)
    for view in rules.views.values():
        document[f"view {view.name}"] = _members(view)
    return document


def rules_from(document: Mapping[str, object]) -> Rules:
    """The rules that said so. What a later release has added has its default, what it has dropped is left out."""
    tables: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    plain: dict[str, object] = {}
    for key, value in document.items():
        table, _, name = key.partition(" ")
        if name and table in TABLES:
            tables[table][name] = _read(TABLES[table], value)
        else:
            plain[key] = value
    upstreams: dict[str, UpstreamSpec] = tables["upstream"]
    terms = _made(Terms, {**plain, "upstreams": upstreams, "domains": DomainRules(tables["domain"].values())})
    silent = {name: Silent(spec) for name, spec in upstreams.items()}
    rules: Rules = _made(Rules, {**plain, "terms": terms, "upstreams": silent, "views": tables["view"]})
    return rules


def _members(value: Any) -> dict[str, object]:
    left_out = _NOT_HERE.get(type(value), frozenset())
    return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in left_out}


def _plain(value: Any) -> object:
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(map(str, value))
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return value


def _made(cls: Any, given: Mapping[str, object]) -> Any:
    """One of this class, of members that are as they should be, or as the document has them."""
    hints, ready = get_type_hints(cls), _NOT_HERE.get(cls, frozenset())
    named = {f.name: given[f.name] for f in fields(cls) if f.name in given}
    return cls(**{name: value if name in ready else _read(hints[name], value) for name, value in named.items()})


def _read(type_: Any, value: Any) -> Any:
    """A member of a document by the type of its field."""
    origin, inner = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(next(t for t in inner if t is not types.NoneType), value)
    if origin in (tuple, frozenset):
        return origin(_read(inner[0], item) for item in value)
    if is_dataclass(type_):
        return _made(type_, value)
    return type_(value) if isinstance(type_, type) and issubclass(type_, StrEnum) else value
