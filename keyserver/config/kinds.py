"""The kinds of values that a configuration key may hold: each reads a TOML value and says what it accepts.

One declaration serves everything: the reader, the error message, and the table in docs/configuration.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_core import CoreSchema, core_schema

from keyserver.config.listener import ACCEPTED as LISTENER_ACCEPTED
from keyserver.config.listener import Listener, read_listener
from keyserver.model import SPANS, Rate
from keyserver.query import ByFingerprint, parse, parse_domain

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_DURATION = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_WORDS = {
    **_DURATION,
    **dict.fromkeys(("second", "seconds"), 1),
    **dict.fromkeys(("minute", "minutes"), 60),
    **dict.fromkeys(("hour", "hours"), 3600),
    **dict.fromkeys(("day", "days"), 86400),
}
_SIZE = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"\s*([0-9]{1,15})\s*([A-Za-z]+)\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def seconds(text: str) -> int | None:
    """The seconds that a duration such as `"90s"` or `"1 day"` means; None where it is not one."""
    if text.strip() == "0":
        return 0
    match = _QUANTITY.fullmatch(text)
    unit = _DURATION_WORDS.get(match[2].lower()) if match else None
    return int(match[1]) * unit if match and unit else None


def octets(text: str) -> int | None:
    """The octets that a size such as `"256 MiB"` means; None where it is not one."""
    if text.strip() == "0":
        return 0
    match = _QUANTITY.fullmatch(text)
    unit = {name.lower(): size for name, size in _SIZE.items()}.get(match[2].lower()) if match else None
    return int(match[1]) * unit if match and unit else None


def spell_seconds(value: int) -> str:
    """A duration for people: `86400` is "1 day"."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if value and value % size == 0:
            return f"{value // size} {word}{'' if value == size else 's'}"
    return "0"


def spell_octets(value: int) -> str:
    """A size for people: `1048576` is "1 MiB"."""
    for name, size in reversed(_SIZE.items()):
        if value and value % size == 0:
            return f"{value // size} {name}"
    return "0"


class Value:
    """Reads one TOML value; `read` raises ValueError where it is not what `accepts` says."""

    @property
    def accepts(self) -> str:
        """What is accepted, for error messages and the documentation."""
        raise NotImplementedError

    @property
    def brief(self) -> str:
        """The same, shorter, for a table below an explanation of the spellings."""
        return self.accepts

    def read(self, value: Any) -> Any:
        """The value as the rest of the code wants it; raises ValueError, whose text may add what exactly is wrong."""
        raise NotImplementedError

    def spell(self, value: Any) -> Any:
        """A value that was read, as one would write it in the file."""
        if value is None:
            return ""
        if isinstance(value, tuple):
            return [str(item) for item in value]
        return value if isinstance(value, bool | int) else str(value)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


@dataclass(frozen=True)
class Duration(Value):
    """A span of time between two bounds, in whole seconds. `optional`: the empty string is None."""

    low: str
    high: str
    optional: bool = False

    @property
    def accepts(self) -> str:
        text = f'a duration from {self.brief}, such as "90s", "15m", "1h", "1d" or "1 day"'
        return f'{text}; "" for none of its own' if self.optional else text

    @property
    def brief(self) -> str:
        return " to ".join(spell_seconds(seconds(bound) or 0) for bound in (self.low, self.high))

    def read(self, value: Any) -> int | None:
        """Whole seconds; a bare 0 is taken for "0"."""
        if self.optional and value == "":
            return None
        found = 0 if value == 0 and type(value) is int else seconds(value) if isinstance(value, str) else None
        if found is None or not (seconds(self.low) or 0) <= found <= (seconds(self.high) or 0):
            raise ValueError
        return found

    def spell(self, value: Any) -> Any:
        return "" if value is None else spell_seconds(value)


@dataclass(frozen=True)
class Size(Value):
    """A number of octets between two bounds."""

    low: str
    high: str

    @property
    def accepts(self) -> str:
        return f'a size from {self.brief}, such as "1 MiB" (units: {", ".join(_SIZE)})'

    @property
    def brief(self) -> str:
        return " to ".join(spell_octets(octets(bound) or 0) for bound in (self.low, self.high))

    def read(self, value: Any) -> int:
        """Octets; a bare 0 is taken for "0"."""
        found = 0 if value == 0 and type(value) is int else octets(value) if isinstance(value, str) else None
        if found is None or not (octets(self.low) or 0) <= found <= (octets(self.high) or 0):
            raise ValueError
        return found

    def spell(self, value: Any) -> Any:
        return spell_octets(value)


@dataclass(frozen=True)
class Whole(Value):
    """A whole number between two bounds. `optional`: the empty string is None."""

    low: int
    high: int
    optional: bool = False

    @property
    def accepts(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: Any) -> int | None:
        """The number; true and false are no numbers."""
        if self.optional and value == "":
            return None
        _require(type(value) is int and self.low <= value <= self.high)
        return int(value)


@dataclass(frozen=True)
class Often(Value):
    """How often something may happen; the empty string is None."""

    @property
    def accepts(self) -> str:
        return 'a rate such as "1/min", "5/s" or "1000/day"; "" for none of its own'

    def read(self, value: Any) -> Rate | None:
        """So many times in one of the spans."""
        if value == "":
            return None
        _require(isinstance(value, str))
        return read_rate(value)

    def spell(self, value: Any) -> Any:
        return "" if value is None else str(value)


def read_rate(text: str) -> Rate:
    """`5/s`, `1/min`, `100/h` or `1000/day`, at most 10,000 times. Raises ValueError."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})\s*/\s*(s|min|h|day)", text.strip())
    _require(match is not None and int(match[1]) <= 10_000)
    assert match is not None
    return Rate(int(match[1]), next(span for span, word in SPANS.items() if word == match[2]))


@dataclass(frozen=True)
class Workers(Value):
    """A number of processes, or `auto`."""

    @property
    def accepts(self) -> str:
        return 'a whole number from 0 to 1024, or "auto"'

    def read(self, value: Any) -> int | str | None:
        return "auto" if value == "auto" else Whole(0, 1024).read(value)


@dataclass(frozen=True)
class Rows(Value):
    """Any number of tables below a section, `[[section.key]]`; by file only."""

    @property
    def accepts(self) -> str:
        return "tables of keys and values"

    def read(self, value: Any) -> tuple[Any, ...]:
        _require(isinstance(value, list) and all(isinstance(row, dict) for row in value))
        return tuple(value)


@dataclass(frozen=True)
class Tables(Rows):
    """Such tables, each read by a section of its own."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return handler(source)  # type: ignore[no-any-return]

    def spell(self, value: Any) -> Any:
        return [row.name for row in value]


@dataclass(frozen=True)
class Flag(Value):
    """A switch. `optional`: the empty string is None."""

    optional: bool = False

    @property
    def accepts(self) -> str:
        return "true or false"

    def read(self, value: Any) -> bool | None:
        if self.optional and value == "":
            return None
        _require(isinstance(value, bool))
        return bool(value)


@dataclass(frozen=True)
class Choice(Value):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def accepts(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def read(self, value: Any) -> str:
        _require(isinstance(value, str) and value in self.words)
        return str(value)


@dataclass(frozen=True)
class Text(Value):
    """A line of text; `what` says which."""

    what: str
    pattern: str = r".*"
    most: int = 1000

    @property
    def accepts(self) -> str:
        return self.what

    def read(self, value: Any) -> str:
        _require(isinstance(value, str) and len(value) <= self.most and not _CONTROL.search(value))
        _require(re.fullmatch(self.pattern, value) is not None)
        return str(value)


@dataclass(frozen=True)
class File(Value):
    """The name of a file; empty for none. `exists`: it must be there and readable."""

    what: str
    exists: bool = True

    @property
    def accepts(self) -> str:
        return f'the name of {self.what}{" that exists and can be read" if self.exists else ""}; "" for none'

    def read(self, value: Any) -> Path | None:
        """The path (relative to the working directory), or None."""
        _require(isinstance(value, str) and len(value) <= 4096 and not _CONTROL.search(value))
        if not value:
            return None
        path = Path(value)
        if self.exists:
            readable(path)
        return path


def readable(path: Path) -> None:
    """Raises ValueError with the operating system's reason where a file cannot be read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


@dataclass(frozen=True)
class Anchors(Value):
    """`system`, `none`, or a PEM file."""

    @property
    def accepts(self) -> str:
        return '"system", "none" or the name of a PEM file that exists and can be read'

    def read(self, value: Any) -> str:
        _require(isinstance(value, str) and bool(value) and len(value) <= 4096 and not _CONTROL.search(value))
        if value not in ("system", "none"):
            readable(Path(value))
        return str(value)


@dataclass(frozen=True)
class Listen(Value):
    """One listener; the empty string opens none. `plain`: without TLS of its own, and not behind a proxy."""

    plain: bool = False

    @property
    def accepts(self) -> str:
        if not self.plain:
            return f'{LISTENER_ACCEPTED}; "" opens none'
        return '"127.0.0.1:8891", "[::1]:8891" or "unix:/run/keyserver/milter.sock" (no TLS here); "" opens none'

    @property
    def brief(self) -> str:
        return f'a listener{" without TLS" if self.plain else ""}, or ""'

    def read(self, value: Any) -> Listener | None:
        if value == "":
            return None
        listener = read_listener(value)
        _require(not (self.plain and (listener.tls or listener.proxied)))
        return listener


@dataclass(frozen=True)
class Listeners(Value):
    """A list of listeners; the empty list opens none. A single string is a list of one."""

    @property
    def accepts(self) -> str:
        return f"a list of listeners, each {LISTENER_ACCEPTED}; [] opens none"

    @property
    def brief(self) -> str:
        return "a list of listeners"

    def read(self, value: Any) -> tuple[Listener, ...]:
        if isinstance(value, str):
            value = [value] if value else []
        _require(isinstance(value, list))
        return tuple(read_listener(item) for item in value)


@dataclass(frozen=True)
class Many(Value):
    """A list of things, each read by `item`."""

    what: str
    item: Callable[[str], Any]

    @property
    def accepts(self) -> str:
        return f"a list of {self.what}"

    def read(self, value: Any) -> tuple[Any, ...]:
        """The things, without repetitions; the error names the first item that is none."""
        _require(isinstance(value, list) and len(value) <= 10_000)
        found = []
        for item in value:
            try:
                _require(isinstance(item, str))
                found.append(self.item(item))
            except ValueError:
                raise ValueError(f"{str(item)[:80]!r} is none") from None
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class One(Value):
    """One thing that is read by `item`."""

    what: str
    item: Callable[[str], Any]

    @property
    def accepts(self) -> str:
        return self.what

    def read(self, value: Any) -> Any:
        """The thing."""
        _require(isinstance(value, str))
        return self.item(value)


def read_domain(text: str) -> str:
    """A domain in its lower-case A-label form."""
    domain = parse_domain(text.strip())
    if domain is None:
        raise ValueError
    return domain


def read_domain_pattern(text: str) -> str:
    """A domain, or `*.` and a domain for every name below it."""
    text = text.strip()
    return f"*.{read_domain(text[2:])}" if text.startswith("*.") else read_domain(text)


def read_fingerprint(text: str) -> str:
    """A fingerprint in upper-case hex digits; how programs write it, with spaces or colons, is passed over."""
    query = parse(text)
    _require(isinstance(query, ByFingerprint))
    return str(query)


def read_host(text: str) -> str:
    """A host name, or an IP address with or without brackets, in one spelling; raises ValueError."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return read_domain(bare)


def read_network(text: str) -> Network:
    """An IP network, or a single address as a network of one. Host bits must be zero: they would be a mistake."""
    return ipaddress.ip_network(text.strip())


def read_address(text: str) -> Address:
    """An IP address."""
    return ipaddress.ip_address(text.strip())


def read_attribute(text: str) -> str:
    """An LDAP attribute description (RFC 4512 section 2.5): a name or an OID, options after a semicolon."""
    _require(re.fullmatch(r"(?:[A-Za-z][A-Za-z0-9-]{0,63}|[0-9]+(?:\.[0-9]+)+)(?:;[A-Za-z0-9-]+)*", text) is not None)
    return text


def read_kind(text: str) -> str:
    """A kind of certificates, as policies have it."""
    _require(text in ("openpgp", "smime"))
    return text


def read_minimum(text: str) -> str:
    """What a policy of verdicts may ask of certificates."""
    _require(text in ("chained", "approved"))
    return text
