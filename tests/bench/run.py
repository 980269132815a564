"""One run: the measurements by name, in order, and what they share."""

from __future__ import annotations

import gc
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import (
    administrator,
    cleaning,
    cluster,
    crowds,
    fronts,
    gpg,
    history,
    hits,
    listings,
    million,
    misses,
    mixed,
    nothing,
    protocols,
    renewing,
    revoked,
    rows,
    searches,
    verdicts,
)
from bench.figures import Row
from bench.machine import Cpus, Missing, cpus, describe, missing, raise_limits
from bench.processes import DidNotStart
from bench.setting import Setting
from bench.table import Report, said
from bench.world import World
from keyserver.store.base import StoreError

Measurement = Callable[[World], list[Row]]

MEASUREMENTS: Mapping[str, Measurement] = {
    "one-key": hits.one_key,
    "thousand-keys": hits.thousand_keys,
    "negatives": hits.negatives,
    "connections": hits.connections,
    "mixed": mixed.rate,
    "mixed-p99": mixed.saturated,
    "mixed-steady": mixed.steady,
    "protocols": protocols.hits,
    "fronts": fronts.one_beside_none,
    "two-fronts": fronts.two_kept,
    "two-connections": fronts.two_with_connections,
    "gpg": gpg.receive,
    "idle": crowds.idle,
    "crowd": crowds.crowd,
    "answer-memory": crowds.per_answer,
    "miss": misses.overhead,
    "wkd-miss": protocols.wkd_misses,
    "nothing": nothing.addresses,
    "miss-cpu": misses.processor_time,
    "cold-hit": misses.cold_hits,
    "cleaning": cleaning.debian,
    "waiting": cleaning.waiting,
    "hostile": cleaning.memory,
    "rows": rows.lookups,
    "crl": revoked.lists,
    "administrator": administrator.beside,
    "streams": administrator.streams,
    "page": administrator.weight,
    "million": million.puts,
    "listings": listings.lists,
    "cluster-hits": cluster.hot_hits,
    "cluster-known": cluster.known,
    "cluster-miss-cpu": cluster.miss_cpu,
    "cluster-delete": cluster.deletes,
    "cluster-puts": cluster.puts,
    "cluster-million": cluster.million,
    "ldap-known": searches.known,
    "ldap-parsed": searches.parsed,
    "ldap-connections": searches.connections,
    "ldap-gpg": searches.sequence,
    "ldap-beside": searches.beside,
    "ldap-hostile": searches.hostile,
    "history-miss-cpu": history.miss_cpu,
    "history": history.questions,
    "renewing": renewing.beside,
    "verdicts": verdicts.mapped,
    "recipients": verdicts.recipients,
}
"""By the names that `--only` takes, in the order of the table."""

LEFT_OUT_BY_QUICK = frozenset(
    {"answer-memory", "hostile", "ldap-hostile", "two-fronts", "two-connections", "cold-hit", "renewing"}
)
"""What a quick run leaves out: it would not end within two minutes."""

ONLY_WHEN_NAMED = frozenset({"million", "listings", "cluster-million", "nothing"})
"""Slow ones that no run has by itself."""


def run(
    only: Sequence[str],
    quick: bool,
    tell: Callable[[str], None],
    rounds: int | None = None,
    seconds: int | None = None,
    settings: Mapping[str, str] | None = None,
    before: Path | None = None,
    pinned: bool = True,
    certificates: int | None = None,
    events: int | None = None,
) -> tuple[Report, list[str]]:
    """Measure; what could not be measured is left out of the report and named, sentence by sentence."""
    raise_limits()
    places = cpus() if pinned else Cpus(frozenset(), frozenset())
    rounds, seconds = rounds or (2 if quick else 5), seconds or (1 if quick else 4)
    for sentence in missing():
        tell(sentence)
    found: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kb-") as folder, ExitStack() as stack:
        world = World(
            Setting(Path(folder), places, quick, rounds, seconds, tell, settings or {}, before, certificates, events),
            stack,
        )
        left_out = ONLY_WHEN_NAMED | (LEFT_OUT_BY_QUICK if quick else frozenset())
        for name in only or [n for n in MEASUREMENTS if n not in left_out]:
            tell(f"measuring {name}")
            began = time.monotonic()
            try:
                rows = MEASUREMENTS[name](world)
            except (Missing, DidNotStart, OSError, RuntimeError, StoreError, subprocess.SubprocessError) as problem:
                failed.append(f"{name} could not be measured: {problem}")
                tell(failed[-1])
            else:
                found += rows
                for one in rows:
                    tell(said(one))
            tell(f"measured {name} in {time.monotonic() - began:.0f} s")
            gc.collect()
    given = "".join(f", {key} = {value}" for key, value in (settings or {}).items())
    how = f"{rounds} interleaved rounds of {seconds} s, one worker each unless said{given}, {places}; medians"
    return Report(describe(), how, tuple(found)), failed
