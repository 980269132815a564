"""No green light that lies: an upstream's health, and what an administrator is warned of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyserver.admin.concerns import (
    MailLoad,
    at_start,
    certificate_ends,
    of_certificates,
    of_clock,
    of_lists,
    of_mail,
    of_store,
    of_upstreams,
    worst,
)
from keyserver.admin.health import Health, Pulse, pulse_of
from keyserver.config import Config
from keyserver.resolver.circuit import UpstreamStatus
from keyserver.resolver.revoked import Standing
from keyserver.store.base import StoreStats
from keyserver.traffic import Traffic
from support.x509 import authority

NOW = 1_800_000_000
NEVER_ASKED = UpstreamStatus("ubuntu", 10, "closed", 0, 0, 0, 0.0, 0.0, "", 0.0)
ASKED = replace(NEVER_ASKED, found=3, failed=1, last_error="no answer within 2.0 s")


def pulse(status: UpstreamStatus, **hour: int) -> Pulse:
    traffic = Traffic(lambda: NOW)
    for outcome, number in hour.items():
        traffic.note(f"upstream ubuntu {outcome}", number)
    return pulse_of(status, traffic)


@pytest.mark.parametrize(
    ("status", "hour", "health"),
    [
        (NEVER_ASKED, {}, Health.UNKNOWN),
        (ASKED, {}, Health.QUIET),
        (ASKED, {"found": 3, "failed": 1}, Health.GOOD),
        (ASKED, {"absent": 1}, Health.GOOD),
        (ASKED, {"found": 2, "failed": 2}, Health.FAILING),
        (replace(ASKED, state="half-open"), {"found": 3}, Health.PROBED),
        (replace(ASKED, state="open"), {"found": 3}, Health.OPEN),
        (replace(ASKED, state="paused", paused_at=NOW), {"found": 3}, Health.PAUSED),
        (replace(NEVER_ASKED, state="paused", paused_at=NOW), {}, Health.PAUSED),
    ],
)
def test_the_worst_word_that_fits(status: UpstreamStatus, hour: dict[str, int], health: Health) -> None:
    found = pulse(status, **hour)
    assert found.health is health
    assert (found.tone == "good") == (health is Health.GOOD)
    assert sum(found.asked) == sum(hour.values())
    assert found.day["failed"] == sum(found.failed) == hour.get("failed", 0)


def test_what_is_ill_is_named_with_its_cure() -> None:
    well = pulse(ASKED, found=1)
    unknown = pulse(NEVER_ASKED)
    broken = pulse(replace(ASKED, state="open", retry_in=30.0), found=1)
    assert not list(of_upstreams([well, unknown]))
    (concern,) = of_upstreams([well, broken])
    assert (concern.kind, concern.link) == ("warn", "/upstreams#upstream-2")
    assert "no answer within 2.0 s" in concern.what
    assert "in 30 s" in concern.cure
    paused = pulse(replace(ASKED, state="paused", paused_at=NOW), found=1)
    everything, *_ = of_upstreams([broken, paused])
    assert everything.kind == "bad"
    assert not list(of_upstreams([]))


def stats(octets: int = 100, healthy: str = "") -> StoreStats:
    return StoreStats(certificates=0, entries={}, records_found=0, records_absent=0, blocked=0, octets=octets,
                      healthy=healthy)  # fmt: skip


def test_the_store() -> None:
    assert not list(of_store(stats(), 0))
    assert not list(of_store(stats(octets=89), 100))
    assert [c.kind for c in of_store(stats(octets=90), 100)] == ["warn"]
    assert [c.kind for c in of_store(stats(octets=100), 100)] == ["bad"]
    (full,) = of_store(stats(octets=100, healthy="max_size is reached"), 100)
    assert "cache.max_size is reached" in full.what
    (ill,) = of_store(stats(healthy="the disk is full"), 0)
    assert (ill.kind, ill.what) == ("bad", "The cache is not healthy: the disk is full")


def test_the_clock() -> None:
    assert not list(of_clock(""))
    (concern,) = of_clock("the clock jumped 2 days ahead: nothing is deleted")
    assert concern.what.startswith("The clock jumped")


@pytest.mark.parametrize(
    ("part", "shed", "words"),
    [
        (0.0, 0, ""),
        (0.5, 0, ""),
        (0.999, 0, "full"),
        (1.0, 5, "full"),
        (0.0, 1, "1 mail not read"),
        (0.0, 7, "7 mails not read"),
    ],
)
def test_mail(part: float, shed: int, words: str) -> None:
    found = list(of_mail(MailLoad(part, shed)))
    assert len(found) == bool(words)
    assert all(words in concern.what for concern in found)


def test_tls_certificates(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    file = tmp_path / "chain.pem"
    issued = authority()
    file.write_bytes(issued.pem)
    end = int(issued.certificate.not_valid_after_utc.timestamp())
    assert certificate_ends([file]) == {file: end}
    day = int(timedelta(days=1).total_seconds())
    assert not list(of_certificates({file: end}, end - 30 * day))
    (soon,) = of_certificates({file: end}, end - 3 * day - 5)
    assert (soon.kind, soon.what) == ("warn", f"The TLS certificate {file} expires in 3 days")
    (over,) = of_certificates({file: end}, end)
    assert over.kind == "bad"
    file.write_bytes(b"nonsense")
    (broken,) = of_certificates(certificate_ends([file, tmp_path / "none"][:1]), int(now.timestamp()))
    assert "cannot be read" in broken.what
    assert certificate_ends([tmp_path / "none"]) == {tmp_path / "none": None}
    assert worst([soon, over]) == "bad"
    assert worst([soon]) == "warn"
    assert worst([]) == ""


def test_revocation_lists_that_are_not_current() -> None:
    good = Standing("http://crl.example", "CN=CA", False, 1, 1, 1_800_000_000, 1, 0, False, "")
    assert not list(of_lists([good]))
    ignored = replace(good, stale=True)
    fatal = replace(ignored, fatal=True, ends=0, problem="it answered 404")
    one, other = of_lists([ignored, fatal])
    assert (one.kind, one.what) == ("warn", "The revocation list of CN=CA ended on 2027-01-15")
    assert one.cure.endswith("newer revocations are not known. http://crl.example: its server has no newer one")
    assert (other.kind, other.what) == ("bad", "The revocation list of CN=CA has not been had yet")
    assert "none of its authority's certificates is used. http://crl.example: it answered 404" in other.cure


def said_at_start(user: int = 1000, **config: object) -> list[str]:
    settings = {"hkp": {"listen": []}, "ldap": {"listen": []}, "admin": {"listen": ""}, **config}
    concerns = list(at_start(Config.model_validate(settings), user))
    assert all(concern.cure and concern.kind == "warn" for concern in concerns)
    return [concern.what for concern in concerns]


def test_a_start_warns_of_root() -> None:
    assert said_at_start() == []
    (root,) = said_at_start(user=0)
    assert "runs as root" in root


def test_a_start_warns_of_what_other_machines_reach_without_tls(tmp_path: Path) -> None:
    inside = ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/hkp.sock", "tls:0.0.0.0:443"]
    outside = ["0.0.0.0:11371", "[::]:11371", "192.0.2.1:11371", "proxy:10.0.0.1:11371"]
    (tmp_path / "c.pem").write_bytes(authority().pem)
    files = dict.fromkeys(("tls_certificate", "tls_key_file"), str(tmp_path / "c.pem"))
    hkp = {"listen": [*inside, *outside], **files}
    found = said_at_start(hkp=hkp)
    assert [line.partition(" reach ")[2].partition(" ")[0] for line in found] == outside
    assert all(line.startswith("hkp.listen: ") for line in found)
    view = {"name": "inside", "ldap_listen": ["0.0.0.0:389"], "hkp_listen": []}
    (line,) = said_at_start(view=[view])
    assert line.startswith("view[inside].ldap_listen: ")
    mail = {"milter_listen": "0.0.0.0:8891", "allowed_clients": ["192.0.2.0/24"]}
    settings = Config.model_validate({"hkp": {"listen": []}, "ldap": {"listen": []}, "mailflow": mail})
    (concern,) = at_start(settings, 1000)
    assert "tls:" not in concern.cure, "a milter has none"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("hkps://keyserver.ubuntu.com", "keyserver.ubuntu.com"),
        ("vks://keys.openpgp.org", "keys.openpgp.org"),
        ("hkps://EU.pool.sks-keyservers.net", "eu.pool.sks-keyservers.net"),
        ("hkps://keys.example.org", ""),
        ("hkps://notkeys.openpgp.org.example", ""),
        ("hkps://notpgp.mit.edu", ""),
        ("hkps://keys.{domain}", ""),
        ("wkd:", ""),
    ],
)
def test_a_start_says_that_a_public_keyserver_is_asked(url: str, public: str) -> None:
    found = said_at_start(upstream=[{"name": "theirs", "url": url}])
    assert [line.partition("(")[2].partition(")")[0] for line in found] == [public] * bool(public)
    some = said_at_start(upstream=[{"name": "theirs", "url": url, "domains": ["example.org"]}])
    assert all("told addresses of example.org" in line for line in some)
    assert len(some) == bool(public)
