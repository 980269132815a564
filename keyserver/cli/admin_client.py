"""Reaches the admin API: of the running service, else of one inside this very process, over the same store.

Either way a command speaks the same requests and sees the same answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http.client
import json
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from keyserver import __version__
from keyserver.cli.options import NOT_FOUND, SERVICE, USAGE, CommandError
from keyserver.clocks import Clocks
from keyserver.config.listener import Listener
from keyserver.install import address_of, proof
from keyserver.state import LOCK, SOCKET, Held, State, StateError

if TYPE_CHECKING:
    from keyserver.config import Config

CONNECT_TIME = 2.0  # seconds; the service is near
ANSWER_TIME = 600.0  # seconds; a purge of millions of entries takes a while
SERVICE_COMES = 6.0  # seconds that a service which is starting or ending has
AGENT = f"keyserver-cli/{__version__}"
TOKEN_FILE = "admin.token"  # noqa: S105  a file's name
MOST = 1 << 28  # octets of a JSON answer

_CODES = {400: USAGE, 404: NOT_FOUND, 409: NOT_FOUND}


class ApiError(CommandError):
    """The admin API said no; `document` is its problem document."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.document = document
        super().__init__(str(document.get("detail") or f"the service says {status}"), code=_CODES.get(status, SERVICE))


class AdminClient:
    """The admin API at one address."""

    def __init__(self, connected: Callable[[], http.client.HTTPConnection], token: str, where: str) -> None:
        self._connected = connected
        self._token = token
        self._where = where

    def get(self, path: str, **query: str) -> Any:
        """A JSON answer. Raises ApiError, or Trouble where nobody answers."""
        return self._json("GET", path, query)

    def post(self, path: str, body: dict[str, Any] | None = None, query: Mapping[str, str] | None = None) -> Any:
        """As `get`, for a change."""
        return self._json("POST", path, dict(query or {}), body)

    def delete(self, path: str, **query: str) -> Any:
        """As `get`, for a deletion."""
        return self._json("DELETE", path, query)

    def upload(
        self, path: str, chunks: Iterable[bytes], size: int | None, kind: str = "application/octet-stream"
    ) -> Any:
        """Send octets as they come (size None: unknown), for a JSON answer at the end."""
        headers = {"Content-Type": kind} | ({"Content-Length": str(size)} if size is not None else {})
        with self._asked("POST", path, chunks, headers) as response:
            return _read(response)

    def download(self, path: str, **query: str) -> Iterator[bytes]:
        """An answer of any size, piece by piece. Raises Trouble when it breaks off."""
        with self._asked("GET", _with(path, query), None, {}) as response:
            if response.status != http.client.OK:
                _read(response)
            while chunk := response.read1(65536):
                yield chunk

    def lines(self, path: str, body: Sequence[str], query: Mapping[str, str]) -> Iterator[Any]:
        """Send a JSON list, for lines of JSON as they come. Raises as `download`."""
        headers = {"Content-Type": "application/json", "Accept": "application/x-ndjson"}
        with self._asked("POST", _with(path, dict(query)), json.dumps(body).encode(), headers) as response:
            if response.status != http.client.OK:
                _read(response)
            while line := response.readline():
                yield json.loads(line)

    def _json(self, method: str, path: str, query: dict[str, str], body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        with self._asked(method, _with(path, query), data, headers) as response:
            return _read(response)

    @contextlib.contextmanager
    def _asked(
        self, method: str, target: str, body: bytes | Iterable[bytes] | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        try:
            connection = self._connected()
        except OSError as error:
            raise CommandError(f"the service at {self._where}: {error}") from error
        try:
            allowed = {"Authorization": f"Bearer {self._token}", "User-Agent": AGENT, **headers}
            # A connection that breaks while we send: it answered before it had read everything, and says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body=body, headers=allowed)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"the service at {self._where} broke off: {error or type(error).__name__}") from error
        finally:
            connection.close()


def segment(text: str) -> str:
    """One part of a path."""
    return quote(text, safe="")


@contextlib.contextmanager
def reach(config: Config, *, alone: bool = True) -> Iterator[AdminClient]:
    """The admin API of the running service, or (`alone`) of one made for this command; else raises Trouble.

    The lock says whether a service runs; the socket in the state directory says which. Who has no such directory
    (another user, another machine) goes by `admin.listen`, where the service proves itself before the token is shown.
    """
    state = State(config.state_dir, config.cache.path)
    if not _here(config.cache.path or state.directory / LOCK) and (client := _elsewhere(config)) is not None:
        yield client
        return
    with contextlib.ExitStack() as stack:
        if _alone(state, stack):
            if not alone:
                raise CommandError("no service runs", code=NOT_FOUND)
            yield stack.enter_context(_inside(config))
        else:
            where = str(state.directory / SOCKET)
            yield AdminClient(lambda: _StateConnection(state, ANSWER_TIME), _token(config), where)


def _here(file: Path) -> bool:
    """Is the cache, or the state of a service that shares one, on this machine, where we may see it?"""
    try:
        return file.exists()
    except OSError:
        return False


def _alone(state: State, stack: contextlib.ExitStack) -> bool:
    """Does no service run? Then none starts until the stack is left. Raises Trouble."""
    monotonic = Clocks.system().monotonic
    until = monotonic() + SERVICE_COMES
    while True:
        try:
            stack.enter_context(state.shared())
        except Held as problem:
            held = problem
        except StateError as problem:
            raise CommandError(str(problem)) from None
        else:
            return True
        try:
            state.connect(CONNECT_TIME).close()
        except StateError as problem:
            raise CommandError(str(problem)) from None
        except OSError as problem:  # it starts or ends at this moment
            if monotonic() >= until:
                raise CommandError(f"{held}, but does not answer at {state.directory / SOCKET}: {problem}") from None
            time.sleep(0.1)
        else:
            return False


def _elsewhere(config: Config) -> AdminClient | None:
    """The service at `admin.listen`, where it shows on each connection that it knows our token."""
    listener = config.admin.listen
    if listener is None or not (listener.unix or listener.port):
        return None
    try:
        token = _token(config)
        _proven(listener, token).close()
    except (CommandError, OSError):
        return None
    return AdminClient(lambda: _proven(listener, token), token, str(listener))


_UNPROVEN = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _proven(listener: Listener, token: str) -> http.client.HTTPConnection:
    """A connection to somebody who knows the token, asked without being told it. Raises OSError."""
    connection, nonce = connect(listener, CONNECT_TIME), secrets.token_hex(16)
    try:
        connection.connect()
        address = address_of(connection.sock.getpeername())
        connection.request("GET", f"/api/v1/proof?nonce={nonce}")
        given = json.loads(connection.getresponse().read(1000))["proof"]
        if not hmac.compare_digest(str(given).encode(), proof(token, nonce, address).encode()):
            raise OSError(f"whoever answers at {listener} does not know the token")
        connection.sock.settimeout(ANSWER_TIME)  # an error where it was closed
        connection.auto_open = 0  # what follows goes to who has just proven itself, or nowhere
    except _UNPROVEN as problem:
        connection.close()
        raise problem if isinstance(problem, OSError) else OSError(f"{listener}: {problem}") from None
    return connection


def connect(listener: Listener, time: float) -> http.client.HTTPConnection:
    """A connection to a listener, not yet opened."""
    if listener.unix is not None:
        return _UnixConnection(listener.unix, time)
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  whoever listens everywhere is here, too
    return http.client.HTTPConnection(anywhere.get(listener.host, listener.host), listener.port, timeout=time)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, time: float) -> None:
        super().__init__("localhost", timeout=time)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _StateConnection(http.client.HTTPConnection):
    """HTTP over the socket in the state directory."""

    def __init__(self, state: State, time: float) -> None:
        super().__init__("localhost", timeout=time)
        self._state = state

    def connect(self) -> None:
        """Open the socket, having looked whose it is."""
        try:
            self.sock = self._state.connect(CONNECT_TIME)
        except StateError as problem:
            raise CommandError(str(problem)) from None
        self.sock.settimeout(self.timeout)


def _token(config: Config) -> str:
    """The administrator's token, as the service made or found it."""
    file = config.admin.token_file or config.state_dir / TOKEN_FILE
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"a service is running, but its token in {file} cannot be read: {reason}") from None


@dataclass(frozen=True, slots=True)
class _Inside:
    """The API in a thread of this process."""

    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    token: str


@contextlib.contextmanager
def _inside(config: Config) -> Iterator[AdminClient]:
    """An admin API over the store, in a thread of this process, on a socket that only we can reach."""
    with tempfile.TemporaryDirectory(prefix="keyserver-") as directory:
        place = Path(directory) / "admin.sock"
        ready: Future[_Inside] = Future()
        thread = threading.Thread(target=_serve, args=(config, place, ready), name="keyserver-store")
        thread.start()
        try:
            inside = ready.result()
        except BaseException as error:
            thread.join()
            if isinstance(error, Exception):
                raise _cannot_open(error) from error
            raise
        try:
            yield AdminClient(lambda: _UnixConnection(place, ANSWER_TIME), inside.token, str(place))
        finally:
            inside.loop.call_soon_threadsafe(inside.stop.set)
            thread.join()


def _serve(config: Config, place: Path, ready: Future[_Inside]) -> None:
    """The thread of `_inside`; what goes wrong before it is ready is the future's."""

    async def run() -> None:
        from aiohttp import web

        from keyserver import app
        from keyserver.admin.api.app import make_api
        from keyserver.app.administration import rules_of
        from keyserver.app.listening import nothing

        async with app.opened(config, Clocks.system()) as parts:
            token, rules = parts.installation.token, rules_of(config, parts.trust, parts.observer)
            api = make_api(parts.operations, rules, token, nothing, config=lambda: config)
            runner = web.AppRunner(api, handle_signals=False, access_log=None)
            await runner.setup()
            await web.UnixSite(runner, str(place)).start()
            stop = asyncio.Event()
            ready.set_result(_Inside(asyncio.get_running_loop(), stop, token))
            await stop.wait()
            await runner.cleanup()

    try:
        asyncio.run(run())
    except Exception as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _cannot_open(error: Exception) -> CommandError:
    """Why there is no store to work on, in one line; a mistake of ours goes on as it is."""
    from keyserver.app import CannotStart
    from keyserver.store.base import StoreError

    if isinstance(error, CannotStart | StoreError | OSError):
        return CommandError(str(error))
    raise error


def _with(path: str, query: dict[str, str]) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _read(response: http.client.HTTPResponse) -> Any:
    """A JSON answer, or ApiError."""
    body = response.read(MOST)
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    if response.status == http.client.UNAUTHORIZED:
        raise CommandError("the running service refuses the token; is it another installation's?")
    if response.status >= http.client.BAD_REQUEST:
        raise ApiError(response.status, document if isinstance(document, dict) else {})
    return document
