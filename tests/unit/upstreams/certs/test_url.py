"""Where certificate stores are, and which addresses plain HTTP is for."""

from __future__ import annotations

import time

import pytest

from keyserver.model import UpstreamSpec
from keyserver.upstreams.certs.upstream import Certs
from keyserver.upstreams.certs.url import PATH, Endpoint, parse_url


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("certs://pki.example.org", Endpoint(True, "pki.example.org", 443, PATH)),
        ("certs://pki.example.org:8443/", Endpoint(True, "pki.example.org", 8443, PATH)),
        ("certs://pki.example.org/certificates/search", Endpoint(True, "pki.example.org", 443, "/certificates/search")),
        ("certs://h/ejbca/public%20web", Endpoint(True, "h", 443, "/ejbca/public%20web")),
        ("certs://8.8.8.8", Endpoint(True, "8.8.8.8", 443, PATH)),
        ("certs+http://127.0.0.1:8080/x", Endpoint(False, "127.0.0.1", 8080, "/x")),
        ("certs+http://10.1.2.3", Endpoint(False, "10.1.2.3", 80, PATH)),
        ("certs+http://[fd00::1]", Endpoint(False, "fd00::1", 80, PATH)),
        ("certs+http://pki.example.org", Endpoint(False, "pki.example.org", 80, PATH)),  # who knows where it is?
    ],
)
def test_urls(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("certs+http://8.8.8.8", "loopback and private networks"),
        ("certs+http://[2606:4700::1111]", "loopback and private networks"),
        ("certs+http://[::ffff:8.8.8.8]", "loopback and private networks"),
        ("certs+http://0.0.0.0", "loopback and private networks"),
        ("certs://pki.{domain}", "one host for all domains"),
        ("certs://h/a b", "%XX"),
        ("certs://h/ä", "%XX"),
        ("certs://h/%zz", "%XX"),
        ("certs://h/a?uri=", "only a path"),
        ("certs://h/a#b", "only a path"),
        ("certs://u:p@h", "credentials"),
        ("certs://", "names no host"),
        ("http://h", "scheme"),
    ],
)
def test_urls_refused(url: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "proxy", "hint"),
    [
        ("certs+http://127.0.0.1", "http://p:1", "no proxy"),
        ("certs://h", "https://p:1", "http://host:port"),
    ],
)
def test_proxies_refused(url: str, proxy: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Certs(UpstreamSpec("test"), url, clock=time.time, proxy=proxy)
