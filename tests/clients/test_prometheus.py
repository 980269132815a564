"""Prometheus's own promtool on what we expose, alert on and draw; names by its conventions; nobody's identity in them.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver import __version__
from support.mails import attached_key, head, multipart, text
from support.openpgp import make
from support.running import ROOT, Service
from support.scripted import Scripted, key, reply
from support.tls import Authority

ALICE = make(["Alice <alice@example.org>"])
ALERTS = ROOT / "conf" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "conf" / "grafana" / "keyserver.json"
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
BASE_UNITS = ("seconds", "bytes")
OTHER_UNITS = frozenset(
    "octets milliseconds ms minutes hours days kilobytes megabytes kib mib percent".split()  # noqa: SIM905
)
LABELS = frozenset(
    "face state how stage upstream outcome way verdict kind result source section file node version python le".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Exposed:
    """What one service exposed, and what it was asked for."""

    text: str
    types: Mapping[str, str]
    helps: Mapping[str, str]
    samples: Mapping[str, float]

    @property
    def names(self) -> set[str]:
        """Of every series that may be asked for."""
        found = set(self.types)
        for name, kind in self.types.items():
            if kind == "histogram":
                found |= {f"{name}_{part}" for part in ("bucket", "count", "sum")}
        return found


def promtool(*words: str, stdin: str = "") -> str:
    """What it says; it fails where promtool does, or remarks upon anything."""
    done = subprocess.run(["promtool", *words], input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def expose(folder: Path, workers: str) -> Exposed:
    """A service that has found, failed, read a mail and served TLS."""
    (folder / "ca").mkdir()
    issued = Authority(folder / "ca").issue()
    settings = {
        "server.workers": workers,
        "hkp.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
        "mailflow.lmtp_listen": '"127.0.0.1:0"',
    }
    mail = folder / "mail.eml"
    mail.write_bytes(head("alice@example.org") + multipart(text(), attached_key(ALICE.octets)))
    routes = {"alice@example.org": key(ALICE.octets), "*": reply(500)}
    async with Scripted(routes) as upstream:
        with Service(folder, upstreams=[upstream.url], settings=settings) as service:
            await asyncio.to_thread(service.cli, "harvest", str(mail), code=None)
            for term in ("alice@example.org", "bob@partner.example", *["alice@example.org"] * 4):
                await service.lookup(term)
            await asyncio.sleep(1.5)  # fronts report once a second
            bearer = {"Authorization": f"Bearer {service.token}"}
            _, _, octets = await service.get("/metrics", face="admin", headers=bearer)
    text_ = octets.decode()
    pairs = re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text_, re.M)
    return Exposed(
        text_,
        dict(re.findall(r"^# TYPE (\S+) (\S+)$", text_, re.M)),
        dict(re.findall(r"^# HELP (\S+) (.+)$", text_, re.M)),
        {name: float(value) for name, value in pairs},
    )


@pytest.fixture(scope="module", params=["0", "1"], ids=["one process", "several"])
def exposed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    return asyncio.run(expose(tmp_path_factory.mktemp("exposed"), request.param))


def test_promtool_finds_nothing_to_remark(exposed: Exposed) -> None:
    assert promtool("check", "metrics", stdin=exposed.text) == ""


def test_names_and_helps(exposed: Exposed) -> None:
    for name, kind in exposed.types.items():
        if name.endswith("_created"):  # when a counter began: the client library's
            continue
        words = name.split("_")
        assert re.fullmatch(r"(keyserver|process)(_[a-z]+)+", name), name
        assert (kind == "counter") == name.endswith("_total"), (name, kind)
        assert not OTHER_UNITS.intersection(words), f"{name}: base units are {BASE_UNITS}"
        assert kind in ("counter", "gauge", "histogram"), name
        assert kind != "histogram" or words[-1] in BASE_UNITS, name
        assert exposed.helps[name][0].isupper() or exposed.helps[name].startswith("1 "), name
        assert name.startswith("process_") or name in OPERATING, f"{name} is not documented"


def test_labels_are_names_from_the_configuration_and_fixed_words(exposed: Exposed) -> None:
    labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', exposed.text))
    assert set(labels) <= LABELS
    for identity in ("alice", "bob", "partner.example", ALICE.fingerprint.lower(), "@"):
        assert identity not in exposed.text.lower()


def test_values_are_true(exposed: Exposed) -> None:
    samples = exposed.samples
    assert samples['keyserver_store_entries{source="keyserver"}'] == 1
    assert samples["keyserver_store_healthy"] == 1
    assert samples["keyserver_store_certificates"] == 1
    assert samples["keyserver_store_limit_bytes"] == 10 << 30
    assert samples["keyserver_store_bytes"] > 0
    assert samples["keyserver_hot_bytes"] > 0
    assert samples["keyserver_clock_jumped"] == 0
    [build] = [name for name in samples if name.startswith("keyserver_build_info")]
    assert f'version="{__version__}"' in build
    assert abs(samples["process_start_time_seconds"] - time.time()) < 600
    [expiry] = [v for name, v in samples.items() if name.startswith("keyserver_tls_certificate_expiry")]
    assert time.time() < expiry < time.time() + 400 * 86400
    circuit = {name: value for name, value in samples.items() if name.startswith("keyserver_upstream_circuit")}
    assert sum(circuit.values()) == 1
    assert [value for name, value in circuit.items() if 'state="closed"' in name] == [1]
    assert samples['keyserver_connections{face="admin"}'] >= 1
    assert samples['keyserver_mailflow_shed_total{way="lmtp"}'] == 0
    assert sum(v for name, v in samples.items() if name.startswith("keyserver_mailflow_mails_total")) == 1
    assert samples['keyserver_hot_answers_total{face="hkp"}'] >= 1
    restarts = {name for name in samples if name.startswith("keyserver_process_restarts_total")}
    assert len(restarts) in (0, 2)


def named(expression: str) -> set[str]:
    """The metrics in an expression."""
    return set(re.findall(r"\b(?:keyserver|process)_[a-z_]+", re.sub(r'"[^"]*"', "", expression)))


def test_every_expression_of_the_dashboard_names_what_exists(exposed: Exposed, tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert len(expressions) > 30
    for expression in expressions:
        assert "up{" in expression or named(expression), expression
        assert named(expression) <= exposed.names, expression
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    written = tmp_path / "rules.yml"
    written.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(written))


def test_the_dashboard_draws_everything(exposed: Exposed) -> None:
    drawn = named(DASHBOARD.read_text(encoding="utf-8").replace('\\"', "").replace('"', " "))
    bases = {re.sub(r"_(bucket|count|sum)$", "", name) for name in drawn}
    ours = {n for n in exposed.types if n.startswith("keyserver_") and not n.endswith("_created")}
    assert ours - bases == {
        "keyserver_hkp_negative_hits_total",
        "keyserver_store_certificates",
        "keyserver_clock_jumped",
    }


def alerts() -> list[str]:
    """Each rule's text, without the comments."""
    lines = [line for line in ALERTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return "\n".join(lines).split("- alert: ")[1:]


def test_every_alert_names_what_exists(exposed: Exposed) -> None:
    for alert in alerts():
        expression = re.search(r"expr: (.*?)\n        for:", alert, re.S)
        assert expression is not None, alert
        assert named(expression[1]) <= exposed.names, alert


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.split("\n")[0])
def test_every_alert_is_whole(alert: str) -> None:
    """How long, how bad, what, and what to do: a heading of docs/operating.md."""
    assert re.search(r"\n        for: \d+[mhd]\n", alert)
    assert re.search(r"\n          severity: (critical|warning|info)\n", alert)
    assert re.search(r'\n          summary: "\{\{ \$labels.instance \}\}', alert)
    runbook = re.search(r"\n          runbook: docs/operating.md#(\S+)\s*$", alert)
    assert runbook is not None
    headings = re.findall(r"^#+ (.+)$", OPERATING, re.M)
    slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert runbook[1] in slugs


def test_rules_by_promtool() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS.with_name("alerts_test.yml")))


async def test_what_fronts_counted_outlives_them(tmp_path: Path) -> None:
    """Prometheus takes a counter that goes back for one that began anew, and would count the rest again."""

    async def negative() -> float:
        bearer = {"Authorization": f"Bearer {service.token}"}
        _, _, octets = await service.get("/metrics", face="admin", headers=bearer)
        found = re.search(r"^keyserver_hkp_negative_hits_total (\S+)$", octets.decode(), re.M)
        assert found is not None
        return float(found[1])

    async with Scripted({"*": reply(404)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings={"server.workers": "1"}) as service:
            [before] = (await service.pids())["front"]
            async with asyncio.timeout(20):
                while await negative() < 3:
                    await service.lookup("nobody@example.org")
                    await asyncio.sleep(0.2)
            counted = await negative()
            os.kill(before, signal.SIGKILL)
            async with asyncio.timeout(20):
                while (await service.pids()).get("front", [before]) == [before]:
                    await asyncio.sleep(0.05)
            assert await negative() >= counted
