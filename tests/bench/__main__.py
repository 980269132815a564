"""`scripts/bench`: one run of the benchmark, from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.picture import draw
from bench.run import MEASUREMENTS, run
from bench.table import as_json, text

DONE, LEFT_OUT = 0, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one table. Nothing is asserted: `LEFT_OUT` when something could not be measured, else `DONE`.

    Raises SystemExit(2) for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="This service beside nginx, Varnish, SKS and slapd, on this machine."
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="measure this only; repeatable, or NAME,NAME"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], type=_setting, help="for the service; repeatable"
    )
    parser.add_argument("--before", metavar="DIR", type=Path, help="checkout of another commit to compare misses with")
    parser.add_argument("--unpinned", action="store_true", help="let servers and load run on any processor")
    parser.add_argument("--quick", action="store_true", help="short rounds: under two minutes, for a first look")
    parser.add_argument("--rounds", metavar="N", type=int, help="interleaved rounds of each measurement")
    parser.add_argument("--seconds", metavar="N", type=int, help="of one round")
    parser.add_argument("--certificates", metavar="N", type=int, help="of cluster-million; a million unless said")
    parser.add_argument("--events", metavar="N", type=int, help="of history; a million unless said")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the table as JSON too")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw the picture too")
    options = parser.parse_args(arguments)
    names = [name for given in options.only for name in given.split(",") if name]
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        parser.error(f"--only {', '.join(unknown)}: there is {', '.join(MEASUREMENTS)}")
    report, failed = run(
        names,
        options.quick,
        lambda line: print(line, file=sys.stderr, flush=True),
        options.rounds,
        options.seconds,
        settings=dict(options.set),
        before=options.before and options.before.resolve(),
        pinned=not options.unpinned,
        certificates=options.certificates,
        events=options.events,
    )
    print(text(report))
    if options.json:
        options.json.write_text(as_json(report), encoding="utf-8")
    if options.svg:
        options.svg.write_text(draw(report), encoding="utf-8")
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return LEFT_OUT if failed else DONE


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
