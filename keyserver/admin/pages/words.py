"""How pages say instants, spans, numbers, fingerprints and names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from markupsafe import Markup

from keyserver.display import grouped, readable

_SPANS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"))
_LATEST = 253402300799  # the last second of the year 9999


def span(seconds: float) -> str:
    """A time span in its largest unit, rounded down: `3 h`."""
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def instant(at: int) -> str:
    """An instant in UTC."""
    return f"{datetime.fromtimestamp(max(0, min(at, _LATEST)), UTC):%Y-%m-%d %H:%M:%S} UTC"


def _time(at: int, text: str) -> Markup:
    stamp = f"{datetime.fromtimestamp(max(0, min(at, _LATEST)), UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, instant(at), text)


def ago(at: int, now: int) -> Markup:
    """How long ago an instant was; the instant itself shows on hover."""
    return _time(at, f"{span(now - at)} ago" if at <= now else f"in {span(at - now)}")


def left(at: int | None, now: int) -> Markup | str:
    """How long something still lasts; None: for ever."""
    if at is None:
        return "never"
    return _time(at, span(at - now) if at > now else f"{span(now - at)} ago")


def day(at: int) -> Markup:
    """The UTC date of an instant."""
    return _time(at, instant(at)[:10])


def count(number: int | float) -> str:
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def octets(number: int) -> str:
    """A size."""
    size, unit = float(number), "octets"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "octets" or size >= 100 else f"{size:.1f} {unit}"


FILTERS: Mapping[str, Callable[..., object]] = {
    "shown": lambda text: readable(str(text)),
    "grouped": lambda text: readable(grouped(str(text))),
    "span": span,
    "instant": instant,
    "ago": ago,
    "left": left,
    "day": day,
    "count": count,
    "octets": octets,
}
