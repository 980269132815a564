"""Sections of the process, its faces and what one client may use of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from keyserver.config.fields import Certificates, Networks, OneListener, PrivateKey, Switch, Title
from keyserver.config.kinds import Choice, Duration, File, Listeners, Many, Text, Whole, Workers, read_host
from keyserver.config.listener import Listener
from keyserver.config.section import Restart, Section, key, required

ListenerList = Annotated[tuple[Listener, ...], Listeners()]
_BASE = r"(?:[A-Za-z0-9.-]+=[^,=+<>;\"\\]+(?:,\s*[A-Za-z0-9.-]+=[^,=+<>;\"\\]+)*)?"
_ORIGIN = r"(?:https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?)?"


class ServerSection(Section):
    """The process, and what it keeps for itself."""

    workers: Annotated[int | str, Workers()] = key(
        0,
        'front processes beside one core; 0: one process for all; "auto": processors less one',
        restart=Restart.ALWAYS,
    )
    state_dir: Annotated[str, Text('a directory that only we may write to; "" for the database\'s own')] = key(
        "",
        "where token, secret, lock and command socket are; empty: beside an SQLite database, else var",
        restart=Restart.ALWAYS,
    )
    node: Annotated[str, Text("a host name", r"[A-Za-z0-9.-]*", 253)] = key(
        "", "this machine's name in a cluster; empty: the host's name", restart=Restart.ALWAYS
    )
    max_detached: Annotated[int, Duration("0", "1h")] = key(
        "60s",
        "how long answers in memory are still given without PostgreSQL; 0 where a block must hold at once",
    )


class HkpSection(Section):
    """The HTTP face: HKP, and the other HTTP protocols beside it."""

    listen: ListenerList = key(["127.0.0.1:11371"], "where it listens", restart=Restart.ALWAYS)
    tls_certificate: Certificates = key("", 'certificate for "tls:" listeners', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", 'private key for "tls:" listeners', restart=Restart.SWITCHED)
    explain: Switch = key(True, "send X-Cache, X-Key-Source, X-Key-Usable headers (they tell strangers what is cached)")


class LdapSection(Section):
    """The LDAP face."""

    listen: ListenerList = key(["127.0.0.1:1389"], "where it listens", restart=Restart.ALWAYS)
    base: Annotated[str, Text("a distinguished name such as dc=keyserver,dc=local", _BASE)] = key(
        "dc=keyserver,dc=local", "the DN below which certificates stand", restart=Restart.ALWAYS
    )
    bind_dn: Annotated[str, Text("a distinguished name such as cn=gateway,dc=example,dc=org, or nothing")] = key(
        "",
        "clients that must bind: this name and password succeed over TLS or from loopback; others get 49",
        restart=Restart.ALWAYS,
    )
    bind_password_file: Annotated[Path | None, File("a file with the password")] = key(
        "", "the password to it", restart=Restart.ALWAYS
    )
    tls_certificate: Certificates = key(
        "", 'set: StartTLS is offered, and "tls:" listeners work', restart=Restart.SWITCHED
    )
    tls_key_file: PrivateKey = key("", "private key to it", restart=Restart.SWITCHED)


class AdminSection(Section):
    """Administration: API, metrics, web page. Loopback unless you say otherwise."""

    listen: OneListener = key("127.0.0.1:8371", "where it listens", restart=Restart.ALWAYS)
    tls_certificate: Certificates = key("", 'certificate for a "tls:" listener', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", 'private key for a "tls:" listener', restart=Restart.SWITCHED)
    token_file: Annotated[Path | None, File("a file with the bearer token", exists=False)] = key(
        "",
        "file with the bearer token; empty: made on first start in the state directory, mode 0600",
        restart=Restart.ALWAYS,
    )
    hosts: Annotated[tuple[str, ...], Many("host names and IP addresses", read_host)] = key(
        [], "names under which the listener is reached, beside localhost and its own addresses", restart=Restart.ALWAYS
    )
    public_url: Annotated[str, Text("a URL such as https://keys.example.org, without a path", _ORIGIN)] = key(
        "",
        "where browsers find the page, when a proxy stands between; with https the proxy has the TLS",
        restart=Restart.ALWAYS,
    )
    viewer_identities: Switch = key(
        True, "may viewers see addresses and names? false: hashes and domains", restart=Restart.ALWAYS
    )


class LimitsSection(Section):
    """What one client may use, and all of them together."""

    connections_per_client: Annotated[int, Whole(1, 100_000)] = key(
        64, "connections per listener and client address; nobody holds more than half of a listener's connections"
    )
    misses_per_minute: Annotated[int, Whole(1, 1_000_000)] = key(
        600, "searches that one client network (/24, /64) may start; hits are never limited"
    )
    proxies: Networks = key(
        [],
        "networks of our proxies, which say who their clients are; a Unix socket's peer is one where any are named. "
        "`proxy:` listeners take connections from them only",
    )
    proxy_header: Annotated[str, Text("the name of a header", r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", 64)] = key(
        "x-forwarded-for", "the one header that they set: x-forwarded-for, forwarded (RFC 7239), x-real-ip or another"
    )
    trusted: Networks = key(
        ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        "left alone by the two limits above: our own gateways",
    )
    searches: Annotated[int, Whole(1, 100_000)] = key(1000, "searches under way at once")


class LogSection(Section):
    """What is logged, and how."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = key("info", "the least that is logged")
    format: Annotated[str, Choice(("auto", "text", "json"))] = key("auto", "auto: text on a terminal, else json")
    identities: Switch = key(False, "true: addresses and key IDs in clear; false: keyed hashes")


class ViewSection(Section):
    """Further listeners over the same cache, with a policy of their own. Any number of these tables."""

    name: Title = required("its name, in logs; each only once")
    hkp_listen: ListenerList = key([], "its HTTP listeners", restart=Restart.ALWAYS)
    ldap_listen: ListenerList = key([], "its LDAP listeners", restart=Restart.ALWAYS)
    answer_mailflow: Switch = key(False, "may mailflow-sourced entries be handed out here?")
    usable_only: Switch = key(False, "only what can be encrypted to now")
    wkd_relay: Switch = key(
        False,
        "WKD for other domains too: what is local, came by WKD, or from an upstream that lists the domain",
    )
    domain_certificates: Switch = key(
        False, "answer with the certificate of the domain's gateway where an address has none"
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")
