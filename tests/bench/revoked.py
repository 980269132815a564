"""A revocation list of very many entries: read off the loop, held, and looked up in."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from bench.child import Child
from bench.figures import OURS, Figure, Row, percentile
from bench.world import World
from keyserver.smime import ber
from keyserver.smime.crl import RevocationList, authority, shortest
from keyserver.smime.crl_reading import read_list
from support.processes import memory_of
from support.x509 import authority as made_authority
from support.x509 import rsa_key

LOOKS = 100_000
_SERIAL = 20  # octets: as long as RFC 5280 section 4.1.2.2 allows
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_DATE, _NEXT = b"\x17\x0d260101000000Z", b"\x17\x0d490101000000Z"
_REASON = bytes.fromhex("300c300a0603551d1504030a0101")
_NOW = 1_790_000_000  # within the list's time
_TICK = 0.001  # seconds between two turns of the loop that is watched meanwhile
_YIELD = 0.0001  # seconds; as the service does


def lists(world: World) -> list[Row]:
    """A list with 20-octet serial numbers and reasons, read by an interpreter of its own beside a running loop."""
    setting = world.setting
    count = setting.scaled(50_000, 1_000_000)
    folder = setting.place("revoked")
    ca = made_authority("Bench CA", key=rsa_key())
    (folder / "ca.pem").write_bytes(ca.pem)
    (folder / "ca.crl").write_bytes(_made(ca.key, ca.certificate.subject.public_bytes(), count))
    rounds = [Child(__name__, {"folder": str(folder)}, setting.cpus.server).answer() for _ in range(setting.rounds)]
    workload = f"a revocation list of {count:,} entries"

    def middle(name: str) -> float:
        return float(median(one[name] for one in rounds))

    waits = f"the loop waits {middle('wait_p99'):.1f} ms p99, {middle('wait'):.0f} ms at most meanwhile"
    return [
        Row(f"{workload}: read and verified", OURS, Figure(middle("seconds"), "s", most=10), note=waits),
        Row(f"{workload}: held", OURS, Figure(middle("held") / 1e6, "MB", most=100)),
        Row(f"{workload}: looked up, on it", OURS, Figure(middle("hit"), "µs", most=5)),
        Row(f"{workload}: looked up, not on it", OURS, Figure(middle("miss"), "µs", most=5)),
    ]


def _made(key: Any, name: bytes, count: int) -> bytes:
    rng = random.Random(count)
    entries = b"".join(
        ber.element(ber.SEQUENCE, ber.element(ber.INTEGER, b"\x7f" + rng.randbytes(_SERIAL - 1)), _DATE, _REASON)
        for _ in range(count)
    )
    body = ber.element(
        ber.SEQUENCE, b"\x02\x01\x01", _RSA_SHA256, name, _DATE, _NEXT, ber.element(ber.SEQUENCE, entries)
    )
    signature = key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    return ber.element(ber.SEQUENCE, body, _RSA_SHA256, ber.element(ber.BITS, b"\0" + signature))


async def _read(folder: Path) -> tuple[RevocationList, dict[str, float]]:
    """The list, how long reading took and how long the loop waited for a turn, and what is held afterwards."""
    issuer = authority((folder / "ca.pem").read_bytes())
    waits: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK)
            waits.append(1000 * (time.perf_counter() - began - _TICK))

    before = memory_of(os.getpid())
    octets = (folder / "ca.crl").read_bytes()
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    began = time.perf_counter()
    found = await asyncio.to_thread(read_list, octets, issuer, _NOW, lambda: time.sleep(_YIELD))
    seconds = time.perf_counter() - began
    watching.cancel()
    held = memory_of(os.getpid()) - before
    return found, {"seconds": seconds, "held": held, "wait": max(waits), "wait_p99": percentile(waits, 0.99)}


def _looked_up(found: RevocationList, serials: Sequence[bytes]) -> float:
    """Microseconds of processor time for one."""
    began = time.process_time()
    for serial in serials:
        found.find(serial)
    return 1e6 * (time.process_time() - began) / len(serials)


def main() -> None:
    """The child of `lists`: see `bench.child`."""
    wanted = json.loads(sys.stdin.readline())
    print("begun", flush=True)
    found, measured = asyncio.run(_read(Path(wanted["folder"])))
    rng = random.Random(found.count)
    there = [shortest(b"\x7f" + rng.randbytes(_SERIAL - 1)) for _ in range(found.count)]
    some = random.Random(1).sample(there, min(LOOKS, len(there)))
    others = [b"\x7e" + rng.randbytes(_SERIAL - 1) for _ in some]
    assert all(found.find(serial) is not None for serial in some)
    assert not any(found.find(serial) is not None for serial in others)
    print(json.dumps({**measured, "hit": _looked_up(found, some), "miss": _looked_up(found, others)}))


if __name__ == "__main__":
    main()
