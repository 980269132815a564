"""One POST: where it goes, what is sent, how long it may make us wait, and what is said of a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

import pytest
from aiohttp import web

from keyserver.events.form import body_of, told
from keyserver.events.posting import LONGEST_WAIT, Became, Posted, Poster
from keyserver.model import Kind, Source
from keyserver.store.history import Event, What

NOW = 1_800_000_000


@pytest.fixture
async def poster() -> AsyncIterator[Poster]:
    one = Poster(lambda: NOW, time=2.0)
    yield one
    await one.close()


class Server:
    """Says what it is told to, and keeps what it got."""

    def __init__(self) -> None:
        self.port = 0
        self.says: Callable[[], web.StreamResponse] = web.Response
        self.got: list[tuple[str, dict[str, str], bytes, object]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append((request.raw_path, dict(request.headers), await request.read(), request.transport))
        return self.says()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    app = web.Application()
    app.router.add_post("/{any:.*}", one.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    yield one
    await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_url_is_sent_as_it_is_written_on_one_connection(server: Server, poster: Poster, host: str) -> None:
    url = f"http://{host}:{server.port}/a%2Fb?q=%C3%A9&x=1"
    for _ in range(3):
        assert await poster.post(url, {"X-Ours": "1"}, b"{}") == Posted(Became.DELIVERED)
    assert {(path, body) for path, _, body, _ in server.got} == {("/a%2Fb?q=%C3%A9&x=1", b"{}")}
    assert len({id(transport) for *_, transport in server.got}) == 1
    headers = server.got[0][1]
    assert (headers["X-Ours"], headers["Content-Type"]) == ("1", "application/json")
    assert headers["User-Agent"].startswith("keyserver/")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("99999999999999999999", LONGEST_WAIT),
        (formatdate(NOW + 60, usegmt=True), 60),
        (formatdate(NOW + 90_000, usegmt=True), LONGEST_WAIT),
        (formatdate(NOW - 60, usegmt=True), 0),
        ("soon", 0),
        ("-5", 0),
        ("٣", 0),
    ],
)
async def test_how_long_it_asks_us_to_wait(server: Server, poster: Poster, said: str, seconds: int) -> None:
    server.says = lambda: web.Response(status=503, headers={"Retry-After": said})
    posted = await poster.post(f"http://127.0.0.1:{server.port}/", {}, b"{}")
    assert posted == Posted(Became.REFUSED, "it answered 503", seconds)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/secret-path", "https://nobody.invalid/secret-path"])
async def test_why_it_failed_names_no_url(poster: Poster, url: str) -> None:
    posted = await poster.post(url, {}, b"{}")
    assert posted.became is Became.FAILED
    assert posted.why
    assert not any(part in posted.why for part in ("secret", "nobody.invalid", "127.0.0.1"))


def test_what_is_said_of_an_event() -> None:
    facts = {"old": "B" * 40, "view": "inside", "since": 3, "vouchers": [{"address": "x@example.org"}]}
    event = Event(7, NOW, What.REPLACED, "A" * 40, Kind.OPENPGP, address="a@example.org", facts=facts)
    assert told(event, lambda text: f"#{text[0]}") == {
        "id": 7, "at": NOW, "what": "replaced", "fingerprint": "#A", "kind": "openpgp", "source": "", "origin": "",
        "address": "#a", "who": "", "old": "#B", "view": "inside",
    }  # fmt: skip
    nothing = told(Event(8, NOW, What.PAUSED, source=Source.LOCAL, origin="é"), lambda text: f"#{text}")
    assert (nothing["fingerprint"], nothing["address"], nothing["source"]) == ("", "", "local")
    assert body_of({"origin": "é\u2028"}) == b'{"origin": "\\u00e9\\u2028"}'
