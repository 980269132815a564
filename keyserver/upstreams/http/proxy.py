"""The HTTP proxy of an upstream, as the configuration names it. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from keyserver.config.sections.upstream import UpstreamSection
from keyserver.upstreams.host import read_url
from keyserver.upstreams.protocol import Mistake, said_by

_FORM = "http://host:port"


def check_proxy(proxy: str, *, template: bool = False) -> None:
    """Whether this is the URL of an HTTP proxy, for an upstream with a host of its own or a `template`.

    Raises ValueError with a sentence on what is accepted."""
    if template:
        raise ValueError("a {domain} host and a proxy do not go together: the addresses could not be checked")
    url = read_url(proxy, ("http",), _FORM)
    if url.template or url.parts.path not in ("", "/") or url.parts.query or url.parts.fragment:
        raise ValueError(f"nothing may follow the host and port; accepted is {_FORM}")


def proxy_mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    """What is wrong with the proxy of an upstream that is asked by HTTP."""
    if section.proxy:
        yield from said_by("proxy", lambda: check_proxy(section.proxy, template=section.template))
