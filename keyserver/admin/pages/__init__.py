"""The administrator's pages: templates, and the headers that hold for all of them.

What comes from a certificate, a mail or a request is hostile text. Templates escape everything and show it through
`shown`, and nothing on a page runs or loads but our own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from keyserver.admin.acts import ACTOR
from keyserver.admin.masking import masked
from keyserver.admin.pages import words
from keyserver.admin.pages.charts import bar, sparkline
from keyserver.admin.plain import plain

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # "no-referrer" would make browsers send `Origin: null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

NAVIGATION = (
    ("/", "Overview"),
    ("/cache", "Key cache"),
    ("/lookup", "Lookup"),
    ("/can-encrypt", "Can encrypt"),
    ("/upstreams", "Upstreams"),
    ("/mailflow", "Mail flow"),
    ("/invitations", "Invitations"),
    ("/history", "History"),
    ("/outlook", "Outlook"),
    ("/settings", "Settings"),
    ("/audit", "Audit"),
    ("/nodes", "Nodes"),
)


def wants_part(request: web.Request) -> bool:
    """Does htmx ask, to swap in a part of the page?"""
    return request.headers.get("HX-Request") == "true" and "HX-History-Restore-Request" not in request.headers


class Templates:
    """The templates, read once each. places: where the pages' own files are; clock: Unix seconds."""

    def __init__(self, places: Mapping[str, str], clock: Callable[[], int]) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=PackageLoader(__name__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {**words.FILTERS, "sparkline": sparkline, "bar": bar}
        self._environment.globals |= {"static": places, "navigation": NAVIGATION}

    def page(self, name: str, status: int = 200, /, **values: object) -> web.Response:
        """A page of a template's name (without `.html`) and what it shows."""
        return self._response(name, status, values)

    def fragment(self, request: web.Request, name: str, block: str, /, **values: object) -> web.Response:
        """A page, or that part of it for which htmx asks to swap it in: one address for both, so that a reload and
        the back button show a page."""
        response = self._response(name, 200, values, block if wants_part(request) else "")
        response.headers["Vary"] = "HX-Request"
        return response

    def part(self, name: str, block: str, /, **values: object) -> str:
        """One block of a page, for streams."""
        return self._text(name, values, block)

    def _response(self, name: str, status: int, values: Mapping[str, object], block: str = "") -> web.Response:
        text = self._text(name, values, block)
        return web.Response(status=status, text=text, content_type="text/html", headers=HEADERS)

    def _text(self, name: str, values: Mapping[str, object], block: str) -> str:
        """Where viewers see no identities, what is shown is masked here, for every page."""
        actor = ACTOR.get()
        if actor.hash_ is not None:
            values = {key: masked(plain(value), actor.hash_) for key, value in values.items()}
        template = self._environment.get_template(f"{name}.html")
        context = {"now": self._clock(), "who": actor.who, "role": str(actor.role), **values}
        return "".join(template.blocks[block](template.new_context(context))) if block else template.render(context)
