"""No green light that lies: an upstream's health, and what an administrator is warned of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyserver.admin.concerns import (
    MailLoad,
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
