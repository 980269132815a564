"""The administrator's pages: templates, and the headers that hold for all of them.

What comes from a certificate, a mail or a request is hostile text. Templates escape everything, and nothing on a page
runs or loads but our own files.
"""

from __future__ import annotations

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

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


class Templates:
    """The templates, read once each."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader(__name__), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def page(self, name: str, status: int = 200, /, **values: object) -> web.Response:
        """A page of a template's name (without `.html`) and what it shows."""
        text = self._environment.get_template(f"{name}.html").render(values)
        return web.Response(status=status, text=text, content_type="text/html", headers=HEADERS)
