"""Proofs remembered: what octets prove stays true until the instant that the proof itself names."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cachetools import LRUCache

from keyserver.model import Proof

MOST = 512  # certificates
LARGEST = 64 << 10  # octets of one; larger ones are rare and would fill memory


class ProofCache:
    """A `prove` function with a memory, least recently used leaves; for any thread.

    A certificate is proved when it is cleaned and again whenever it is answered; between two instants of its own
    (`Proof.turns`) nothing can differ."""

    def __init__(self, prove: Callable[[bytes, int], Proof]) -> None:
        self._prove = prove
        self._known: LRUCache[bytes, tuple[int, Proof]] = LRUCache(MOST)
        self._lock = threading.Lock()

    def __call__(self, octets: bytes, now: int) -> Proof:
        """What these clean octets prove at `now` (Unix seconds)."""
        with self._lock:
            known = self._known.get(octets)
        if known is not None:
            since, proof = known
            if since <= now and (proof.turns is None or now < proof.turns):
                return proof
        proof = self._prove(octets, now)
        self.learn(octets, proof, now)
        return proof

    def learn(self, octets: bytes, proof: Proof, now: int) -> None:
        """Somebody has proved these octets at `now` already."""
        if len(octets) <= LARGEST:
            with self._lock:
                self._known[octets] = (now, proof)
