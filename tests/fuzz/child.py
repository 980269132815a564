"""One target under atheris in a process of its own: `python -m fuzz.child TARGET FINDINGS ARGS…`, where ARGS are
libFuzzer's. A finding does not end it: it is kept as a vector, and its kind is told once, as a line of output."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["keyserver", "dns"]):
    from fuzz.register import TARGETS

SLOW = 2.0
"""Seconds of CPU for one input, instrumented, on a busy machine; the product's own bounds are below a tenth of it."""


ANYHOW = 4
"""One input in so many is changed without regard to its structure."""


def escaped(word: bytes) -> bytes:
    """As libFuzzer's dictionaries have it."""
    return b"".join(b"\\x%02x" % octet for octet in word)


def kind_of(error: BaseException) -> str:
    """Where and what: one kind for all inputs that fail at the same place in the same way."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/keyserver/" in f.filename or "/fuzz/" in f.filename]
    where = "/".join(Path(ours[-1].filename).parts[-2:])
    return f"{type(error).__name__} in {where}:{ours[-1].name}: {str(error)[:100]!r} at {ours[-1].line!r}"


def main() -> None:
    name, findings = sys.argv[1], Path(sys.argv[2])
    target = TARGETS[name]
    known: set[str] = set()

    def note(octets: bytes, kind: str) -> None:
        place = kind.partition(": ")[0]
        if place in known:
            return
        known.add(place)
        findings.mkdir(parents=True, exist_ok=True)
        file = findings / hashlib.sha256(octets).hexdigest()[:16]
        file.write_bytes(octets)
        print(f"finding: {file.name}: {kind}", flush=True)

    def once(octets: bytes) -> None:
        began = time.process_time()
        try:
            target.run(octets)
        except Exception as error:
            note(octets, kind_of(error))
        if (took := time.process_time() - began) > SLOW:
            note(octets, f"slow: {took:.1f} s")

    def mutated(octets: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)

        def raw(part: bytes) -> bytes:
            return bytes(atheris.Mutate(part, most))

        if target.mutate is None or not rng.randrange(ANYHOW):
            return raw(octets)
        return target.mutate(octets, rng, raw)[:most]

    with tempfile.NamedTemporaryFile(suffix=".dict") as words:
        words.write(b"".join(b'"%b"\n' % escaped(word) for word in target.words))
        words.flush()
        options = [f"-dict={words.name}"] if target.words else []
        atheris.Setup([sys.argv[0], *options, *sys.argv[3:]], once, custom_mutator=mutated)
        atheris.Fuzz()


main()
