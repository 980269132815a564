"""The newer protocols beside HKP v1: hot hits, and what a miss by WKD takes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from statistics import median

from bench.certificates import Made, make
from bench.figures import OURS, Figure, Row, contest, percentile, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.service import Service, fill, lookup
from bench.setting import Setting
from bench.upstream import Scripted
from bench.view import View
from bench.world import DELAY, KEY, World
from keyserver.model import Source
from keyserver.wire.wkd import HOST, advanced
from support import openpgp
from support.tls import Authority

DOMAIN = "bench.example"
V1 = "HKP v1"


def hits(world: World) -> list[Row]:
    """One key of our own domain, hot, by each protocol in turn."""
    setting, made = world.setting, make("protocols", KEY)
    folder = setting.place("protocols")
    fill(folder, [made], source=Source.LOCAL)
    settings = {"policy.internal_domains": f'["{DOMAIN}"]', **setting.settings}
    service = Service(world.stack, folder, world.upstream.url, setting.cpus.server, settings)
    local = made.addresses[0].partition("@")[0]
    paths = {
        V1: lookup(made.fingerprint),
        "WKD": advanced(DOMAIN, local),
        "VKS": f"/vks/v1/by-fingerprint/{made.fingerprint}",
        "VKS by address": f"/vks/v1/by-email/{made.addresses[0]}",
        "HKP v2": f"/pks/v2/certs/by-vfingerprint/04{made.fingerprint}",
    }
    service.warm(paths.values())
    loads = {name: _load(setting, name, path) for name, path in paths.items()}
    rounds = contest(
        {name: partial(load, service.port, service.running) for name, load in loads.items()},
        setting.rounds,
        warm=tuple(paths),
    )
    workload = f"one key, {BUSY} kept connections, by protocol"
    rows = [row(workload, f"{OURS}: {V1}", rounds[V1], note=_size(service, paths[V1]))]
    for name in paths:
        if name != V1:
            figure = Figure(ratio(rounds, name, V1), f"× {V1}", least=0.95)
            rows.append(row(workload, f"{OURS}: {name}", rounds[name], figure, _size(service, paths[name])))
    return rows


def _load(setting: Setting, name: str, path: str) -> Wrk:
    place = setting.place(f"wrk-{name.replace(' ', '-')}")
    return Wrk(place, [path], connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)


def _size(service: Service, path: str) -> str:
    return f"an answer of {len(service.get(path)[1]):,} octets"


# Misses by WKD

KEPT, CLOSING = "kept.bench-wkd.de", "closing.bench-wkd.de"
ADDRESS = "127.0.0.2"  # where both have their Web Key Directory, at the port that all of them have
PORT = 443
AMONG = 8  # misses of one kind, before the next kind has its turn


def wkd_misses(world: World) -> list[Row]:
    """A miss by address, one at a time: by HKP, by WKD on a kept TLS connection, by WKD on a new one each time."""
    setting = world.setting
    folder = setting.place("wkd-miss")
    tls = Authority(folder / "tls")
    issued = tls.issue([f"{HOST}.{KEPT}", f"{HOST}.{CLOSING}"])
    directory = Scripted(
        world.stack, folder / "directory", DELAY, setting.cpus.load, (ADDRESS, PORT), (issued.certificate, issued.key)
    )
    plain = Scripted(world.stack, folder / "keyserver", DELAY, setting.cpus.load)
    view = View(folder, hosts={f"{HOST}.{KEPT}": ADDRESS, f"{HOST}.{CLOSING}": ADDRESS})
    by_hkp = Service(world.stack, setting.place("by-hkp"), plain.url, setting.cpus.server, setting.settings)
    by_wkd = Service(
        world.stack,
        setting.place("by-wkd"),
        "wkd:",
        setting.cpus.server,
        setting.settings,
        keys=f'allow_private = true\ntls_ca_file = "{tls.ca_file}"\n',
        inside=view.command,
    )
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    reach = {
        V1: (by_hkp, plain, _direct_hkp(plain.port), "bench.example"),
        "kept": (by_wkd, directory, _direct_wkd(context, KEPT), KEPT),
        "new": (by_wkd, directory, _direct_wkd(context, KEPT), CLOSING),
    }
    count = setting.scaled(40, 400)
    asked: dict[str, list[float]] = {name: [] for name in reach}
    own: dict[str, list[float]] = {name: [] for name in reach}
    for start in range(0, count + AMONG, AMONG):  # the first of each warm it, and are not counted
        for name, (service, upstream, direct, domain) in reach.items():
            through = _asker(HTTPConnection("127.0.0.1", service.port, timeout=30))
            for number in range(start, start + AMONG):
                local = f"{name.replace(' ', '').lower()}{number}"
                made = _certificate(f"{local}@{domain}")
                upstream.put(f"{local}@{domain}", made.octets)
                if start == 0:
                    through(lookup(f"{local}@{domain}"))
                    continue
                asked[name].append(through(lookup(f"{local}@{domain}")))
                if name == "new":
                    upstream.put(f"{local}@{KEPT}", made.octets)
                own[name].append(direct(local))
    return _rows(asked, own)


def _rows(asked: Mapping[str, Sequence[float]], own: Mapping[str, Sequence[float]]) -> list[Row]:
    """Times through the service; `own`: of the same questions to the upstream itself, each on a kept connection."""
    added = {name: median(a - b for a, b in zip(asked[name], own[name], strict=True)) for name in asked}
    figures = {
        V1: Figure(added[V1], "ms added"),
        "kept": Figure(added["kept"] / added[V1], f"× what {V1} adds", most=1.3),
        "new": Figure(median(asked["new"]) - median(asked["kept"]), "ms more than kept", most=6.0),
    }
    workload = f"a miss by address, upstream of {DELAY * 1000:.0f} ms on loopback"
    who = {V1: f"{OURS}: {V1}", "kept": f"{OURS}: WKD, a kept TLS connection", "new": f"{OURS}: WKD, a new one"}
    return [
        Row(
            workload,
            who[name],
            figures[name],
            p50=median(times),
            p99=percentile(times, 0.99),
            note=f"{added[name]:.2f} ms added",
        )
        for name, times in asked.items()
    ]


def _certificate(address: str) -> Made:
    made = openpgp.make([f"Bench <{address}>"], seed=address, hash_name="sha256", old=False)
    return Made(made.octets, made.fingerprint)


def _asker(connection: HTTPConnection) -> Callable[[str], float]:
    """Each call is one request on a kept connection, and gives its milliseconds."""

    def ask(path: str) -> float:
        began = time.perf_counter()
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status}")
        return 1000 * (time.perf_counter() - began)

    return ask


def _direct_hkp(port: int) -> Callable[[str], float]:
    ask = _asker(HTTPConnection("127.0.0.1", port, timeout=30))
    return lambda local: ask(lookup(f"{local}@bench.example"))


def _direct_wkd(context: ssl.SSLContext, domain: str) -> Callable[[str], float]:
    ask = _asker(_Kept(context, f"{HOST}.{domain}"))
    return lambda local: ask(advanced(domain, local))


class _Kept(HTTPSConnection):
    """By TLS for a host's name, wherever the system thinks that it is."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        super().__init__(ADDRESS, PORT, timeout=30, context=context)
        self._context, self._name = context, name

    def connect(self) -> None:
        """Over TCP to where we listen, then TLS for the name."""
        HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)
