"""Small charts as SVG that the server draws: they follow the page's colours and need no script. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT = 120, 24

_SPARK = Markup(
    '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" preserveAspectRatio="none">'
    '<title>{title}</title><polygon class="area" points="0,{h} {points} {w},{h}"/>'
    '<polyline class="line{tone}" points="{points}"/></svg>'
)
_BAR = Markup(
    '<svg class="bar" viewBox="0 0 100 8" width="100%" height="12" role="img" preserveAspectRatio="none">'
    '<title>{title}</title><rect class="track" width="100" height="8" rx="2"/>'
    '<rect class="fill{tone}" width="{part}" height="8" rx="2"/></svg>'
)


def sparkline(values: Sequence[float], title: str, tone: str = "") -> Markup:
    """A line through values, oldest first; `tone`: good, warn or bad."""
    highest = max([*values, 1])
    step = _WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{n * step:.1f},{_HEIGHT - 2 - (_HEIGHT - 4) * value / highest:.1f}" for n, value in enumerate(values)
    )
    return _SPARK.format(w=_WIDTH, h=_HEIGHT, title=title, points=points or "0,0", tone=f" {tone}" if tone else "")


def bar(part: float, title: str, tone: str = "") -> Markup:
    """How much of a whole, 0 to 1."""
    return _BAR.format(part=f"{100 * min(1.0, max(0.0, part)):.1f}", title=title, tone=f" {tone}" if tone else "")
