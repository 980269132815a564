"""Fuzz each target for a while, one after the other, and print executions, coverage and findings."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.register import TARGETS

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "fuzz"
CORPORA = ROOT / "var" / "fuzz"
TIMEOUT = 30  # seconds of one input, after which it is a finding and the target ends
MEMORY = 2048  # MiB of a process
_STATUS = re.compile(r"#(\d+)\s.*cov: (\d+) ft: (\d+) corp: (\d+)/")
_ARTEFACT = re.compile(r"Test unit written to \S*/((?:timeout|oom|crash)-\w+)")


@dataclass
class Run:
    """What came of one target. `edges`: of the product's bytecode, that were reached; `kept`: inputs of the corpus."""

    target: str
    executions: int = 0
    edges: int = 0
    kept: int = 0
    findings: list[str] = field(default_factory=list)
    ended: bool = True

    def row(self) -> str:
        """As a line of the table."""
        return f"{self.target:16} {self.executions:>12,} {self.edges:>7,} {self.kept:>7,} {len(self.findings):>9}"


def fuzz(name: str, seconds: int) -> Run:
    """One target, on the corpus that earlier runs left, and its seeds."""
    corpus = CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    for octets in TARGETS[name].seeds():
        (corpus / hashlib.sha1(octets, usedforsecurity=False).hexdigest()).write_bytes(octets[: TARGETS[name].most])
    findings = VECTORS / name
    findings.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": TARGETS[name].most,
        "timeout": TIMEOUT,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    words = [f"-{key}={value}" for key, value in options.items()]
    child = subprocess.Popen(
        [sys.executable, "-m", "fuzz.child", name, str(findings), *words, str(corpus)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    run = Run(name)
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line)
        if status := _STATUS.search(line):
            run.executions, run.edges, run.kept = int(status[1]), int(status[2]), int(status[4])
        elif line.startswith("stat::number_of_executed_units:"):
            run.executions = int(line.rpartition(":")[2])
        elif line.startswith("finding: "):
            run.findings.append(line.removeprefix("finding: ").strip())
        elif artefact := _ARTEFACT.search(line):
            run.findings.append(artefact[1])
    run.ended = child.wait() == 0
    if not run.ended and not run.findings:
        run.findings.append("it ended by itself: " + "".join(said[-12:]))
    with contextlib.suppress(OSError):  # it has files, or somebody took it away
        findings.rmdir()
    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--list", action="store_true", help="print the targets and end")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    given = parser.parse_args()
    if given.list:
        print(*TARGETS, sep="\n")
        return 0
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; --list has them")
    print(f"{'target':16} {'executions':>12} {'edges':>7} {'corpus':>7} {'findings':>9}", flush=True)
    runs = []
    for name in given.targets or TARGETS:
        run = fuzz(name, given.seconds)
        runs.append(run)
        print(run.row(), *(f"  {finding}" for finding in run.findings), sep="\n", flush=True)
    found = sum(len(run.findings) for run in runs)
    print(f"{len(runs)} targets, {sum(run.executions for run in runs):,} executions, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
