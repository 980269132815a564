"""One connection to a directory: TLS, bind and searches by ldap3, on a socket that is kept within bounds.

Everything here blocks and runs in one of the few LDAP threads; `Link.cut` and `Link.close` may come from elsewhere.
TLS is the standard library's, not ldap3's: that one checks nothing by default and knows no addresses in certificates.
"""

from __future__ import annotations

import math
import socket
import ssl
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from keyserver.model import Fault, Malformed
from keyserver.upstreams.ldap.guard import Guard, GuardError, LinkFault, page_cookie
from keyserver.upstreams.trouble import WRONG_NAME, ours, starved
from keyserver.wire.loop import LOOP_CONTROL, LOOP_MARK, via_value

with warnings.catch_warnings():  # ldap3 2.9.1 imports two names that pyasn1 0.6 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPException
    from ldap3.operation.search import compile_filter, parse_filter
    from ldap3.utils.dn import parse_dn

START_TLS = "1.3.6.1.4.1.1466.20037"  # RFC 4511 section 4.14
PAGED = "1.2.840.113556.1.4.319"  # RFC 2696
MAX_ENTRIES = 100  # of one search; commercial gateways give as many by default
PAGE = 50
MAX_COOKIE = 4096  # octets
CODES = {  # RFC 4511 section 4.1.9, those worth a name of their own
    1: "operations error",
    2: "protocol error",
    3: "time limit exceeded",
    4: "size limit exceeded",
    7: "authentication method not supported",
    8: "stronger authentication required",
    10: "referral (never followed)",
    11: "administrative limit exceeded",
    12: "a control was refused",
    13: "confidentiality required",
    21: "invalid syntax",
    32: "no such object",
    34: "invalid DN",
    48: "inappropriate authentication",
    49: "invalid credentials",
    50: "insufficient access rights",
    51: "busy",
    52: "unavailable",
    53: "unwilling to perform",
    80: "other error",
}
_FAULTS = {7: Fault.CONFIGURATION, 8: Fault.CONFIGURATION, 13: Fault.CONFIGURATION, 48: Fault.CONFIGURATION}
_FAULTS |= {49: Fault.CONFIGURATION, 51: Fault.BUSY}


class LinkError(Exception):
    """A connection could not be made or broke; the text says how, as a clause about the server.

    `unheard`: it was closed before one octet of an answer came. `unmade`: it never stood. `slow`: for want
    of time, of which there may have been little.
    """

    def __init__(
        self,
        reason: str,
        fault: Fault = Fault.TRANSIENT,
        *,
        unheard: bool = False,
        unmade: bool = False,
        slow: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault = fault
        self.unheard = unheard
        self.unmade = unmade
        self.slow = slow


@dataclass(frozen=True, slots=True)
class LdapResult:
    """What a search brought: a result code and the entries, attribute names in lower case with their options."""

    code: int
    entries: tuple[dict[str, list[bytes]], ...] = field(repr=False)
    looped: bool = False  # the peer is an instance of ours and has seen the asker before

    @property
    def reason(self) -> str:
        """The result for people."""
        return describe(self.code)

    @property
    def fault(self) -> Fault:
        """Whose fault an unsuccessful result is."""
        return _FAULTS.get(self.code, Fault.TRANSIENT)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How connections to an upstream are made safe and whom they speak for."""

    context: ssl.SSLContext | None = None
    starttls: bool = False
    bind_dn: str = ""
    bind_password: str = field(default="", repr=False)


def valid_filter(text: str) -> bool:
    """Whether ldap3 can send this filter (RFC 4515)."""
    try:
        for node in parse_filter(text, None, False, False, None, False).elements:
            compile_filter(node)
    except (LDAPException, ValueError, LookupError, AttributeError, TypeError):
        return False
    return True


def valid_dn(text: str) -> bool:
    """Whether this is a distinguished name (RFC 4514)."""
    try:
        return bool(parse_dn(text))
    except (LDAPException, ValueError, LookupError):
        return False


def describe(code: int) -> str:
    """A result code for people: `result 53, unwilling to perform`."""
    return f"result {code}, {CODES[code]}" if code in CODES else f"result {code}"


class Link:
    """A connection. Made from a connected socket; `enter` once, then `search` as often as wanted, `arm` before each
    answer."""

    def __init__(self, sock: socket.socket, name: str, monotonic: Callable[[], float]) -> None:
        """`name`: the host as configured, which its certificate must prove; `monotonic`: in seconds."""
        self._name = name
        self._guard = Guard(sock, monotonic)
        self._connection: Any = None

    @property
    def reusable(self) -> bool:
        """Whether the next question may go over it."""
        return self._connection is not None and self._guard.clean

    @property
    def answered(self) -> bool:
        """Whether the other side ever sent a sound LDAP message."""
        return self._guard.answered

    def arm(self, end: float, cap: int) -> None:
        """The next answer may take until `end` (monotonic clock) and `cap` octets, handshakes included."""
        self._guard.arm(end, cap)

    def enter(self, entrance: Entrance) -> None:
        """TLS, StartTLS, bind, as far as configured. Raises LinkError."""
        if entrance.context is not None and not entrance.starttls:
            self._secure(entrance.context)
        # the address is never used: the socket is there, and ldap3 must not open one of its own
        server = ldap3.Server("127.0.0.1", get_info=ldap3.NONE, allowed_referral_hosts=[])
        self._connection = connection = ldap3.Connection(
            server,
            user=entrance.bind_dn or None,
            password=entrance.bind_password or None,
            client_strategy=ldap3.SYNC,
            auto_bind=ldap3.AUTO_BIND_NONE,
            auto_referrals=False,
            auto_range=False,
            auto_escape=False,
            check_names=False,
            read_only=True,
            raise_exceptions=False,
            return_empty_attributes=False,
        )
        connection.strategy._outstanding = {}
        connection.socket, connection.closed, connection.listening = self._guard, False, True
        if entrance.context is not None and entrance.starttls:
            self._run("extendedResp", connection.extended, START_TLS)
            if code := self._code():
                raise LinkError(f"it refused StartTLS: {describe(code)}", Fault.CONFIGURATION)
            self._secure(entrance.context)
        if entrance.bind_dn:
            if entrance.context is None:
                raise LinkError("credentials are sent over TLS only", Fault.CONFIGURATION)
            self._run("bindResponse", connection.bind, read_server_info=False)
            if code := self._code():
                raise LinkError(f"it refused the bind: {describe(code)}", _FAULTS.get(code, Fault.TRANSIENT))

    def search(
        self, base: str, scope: str, text: str, attributes: Sequence[str], *, via: str = "", paged: bool = False
    ) -> LdapResult:
        """One search, at most MAX_ENTRIES entries. Raises LinkError.

        `text` is a filter whose values are escaped already. `via`: the name for the loop control, empty for none.
        """
        entries: list[dict[str, list[bytes]]] = []
        cookie, looped = b"", False
        for _ in range(MAX_ENTRIES // PAGE):
            self._guard.expect(MAX_ENTRIES - len(entries))
            self._run(
                "searchResDone",
                self._connection.search,
                base,
                text,
                search_scope=scope,
                dereference_aliases=ldap3.DEREF_NEVER,
                attributes=list(attributes),
                size_limit=MAX_ENTRIES,
                time_limit=math.ceil(self._guard_left()),
                controls=[(LOOP_CONTROL, False, via_value(via))] if via else None,
                paged_size=PAGE if paged else None,
                paged_cookie=cookie or None,
            )
            entries += [_lowered(e) for e in self._connection.response or () if e.get("type") == "searchResEntry"]
            self._connection.response = None  # or it would be held as long as the connection
            looped |= self._guard.controls.get(LOOP_CONTROL) == LOOP_MARK
            cookie = self._cookie() if paged else b""
            if not cookie or len(entries) >= MAX_ENTRIES:
                break
        code = self._code()
        return LdapResult(4 if self._guard.truncated and not code else code, tuple(entries), looped)

    def cut(self) -> None:
        """From any thread: whoever waits on this connection gets an error at once."""
        self._guard.cut()

    def close(self) -> None:
        """Give the socket back; may be called repeatedly."""
        self._guard.close()

    def _secure(self, context: ssl.SSLContext) -> None:
        """The TLS handshake, within the deadline. Raises LinkError."""
        unmade = not self._guard.answered
        try:
            self._guard.wrap(context.wrap_socket(self._guard.raw, server_hostname=self._name))
        except ssl.SSLCertVerificationError as error:
            if starved():
                raise LinkError("file descriptors are running out here", Fault.LOCAL) from error
            # OpenSSL's own words name the host, and reasons are logged
            why = "it is for another name" if error.verify_code in WRONG_NAME else error.verify_message or "not trusted"
            raise LinkError(f"it shows a bad certificate: {why}", Fault.CONFIGURATION, unmade=unmade) from error
        except GuardError as error:
            raise self._broken() from error
        except TimeoutError as error:
            raise LinkError("it did not finish the TLS handshake in time", unmade=unmade, slow=True) from error
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            fault = Fault.LOCAL if ours(error) else Fault.TRANSIENT
            raise LinkError("the TLS handshake failed", fault, unmade=unmade and not ours(error)) from error

    def _run(self, answer: str, operation: Any, *arguments: Any, **options: Any) -> None:
        """An ldap3 call, which ends with this type of answer; whatever it raises becomes LinkError.

        It parses strangers' octets, so that may be anything.
        """
        try:
            operation(*arguments, **options)
        except (LDAPException, OSError) as error:
            raise self._broken() from error
        except Exception as error:
            raise self._broken() from error
        if self._connection.result["type"] != answer:
            raise self._broken()

    def _broken(self) -> LinkError:
        """What the guard says was wrong; where it saw nothing, ldap3 could make no sense of what came."""
        trouble = self._guard.trouble = self._guard.trouble or LinkFault.GARBAGE
        return LinkError(f"it {trouble}", unheard=not self._guard.heard and trouble is LinkFault.CLOSED)

    def _code(self) -> int:
        return int(self._connection.result["result"])

    def _guard_left(self) -> float:
        try:
            return self._guard.left
        except GuardError as error:
            raise self._broken() from error

    def _cookie(self) -> bytes:
        try:
            cookie = page_cookie(self._guard.controls.get(PAGED, b""))
        except Malformed as error:
            raise self._broken() from error
        return cookie if len(cookie) <= MAX_COOKIE else b""


def _lowered(entry: dict[str, Any]) -> dict[str, list[bytes]]:
    """An ldap3 entry's raw values by lower-case attribute name; names that differ only in case are joined."""
    found: dict[str, list[bytes]] = {}
    for name, values in entry["raw_attributes"].items():
        found.setdefault(str(name).lower(), []).extend(values or ())
    return found
