"""The cache: the store, what is done to certificates in it, and who hears of its changes."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyserver import openpgp, smime
from keyserver.app.context import CannotStart, Context
from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.passwords import read_password
from keyserver.config.sections.caching import CacheSection
from keyserver.hygiene import Hygiene
from keyserver.listen.tls import Stamp, stamp_of
from keyserver.model import Kind
from keyserver.resolver.proof_cache import ProofCache
from keyserver.resolver.revoked import Revocations
from keyserver.store.base import Store, StoreError, StoreRefused
from keyserver.store.history import Bounds
from keyserver.store.opening import open_store


@dataclass(frozen=True, slots=True)
class LoadedAnchors:
    """Trust anchors, and what they were read from."""

    anchors: smime.Anchors
    origin: tuple[str, Stamp]


class TrustAnchors:
    """The trust anchors of now."""

    def __init__(self, loaded: LoadedAnchors) -> None:
        self.loaded = loaded

    def load(self, trust_anchors: str) -> LoadedAnchors:
        """Those of a setting; the same where nothing has changed. Raises CannotStart."""
        return self.loaded if origin_of(trust_anchors) == self.loaded.origin else load_anchors(trust_anchors)

    def chained(self, certificate: bytes, intermediates: Sequence[bytes], now: int) -> bool:
        """As `smime.Anchors.chained`."""
        return self.loaded.anchors.chained(certificate, intermediates, now)


@dataclass(frozen=True, slots=True)
class Cache:
    """An open store and what belongs to it."""

    hygiene: Mapping[Kind, Hygiene]
    anchors: TrustAnchors
    revocations: Revocations
    changes: Changes
    store: Store


@contextlib.asynccontextmanager
async def open_cache(context: Context) -> AsyncIterator[Cache]:
    """The cache, until the block ends. Raises CannotStart."""
    config = context.config
    anchors = TrustAnchors(load_anchors(config.smime.trust_anchors))
    revocations = Revocations()
    hygiene = hygiene_of(anchors, revocations)
    changes = Changes()
    try:
        store = await open_store(
            config.cache.database, hygiene, changes, config.cache.max_size, password_of(config.cache)
        )
    except StoreRefused as problem:
        raise CannotStart(str(problem)) from None
    try:
        store.history.limit(history_bounds(config))
        await _set(context.clocks, store)
        yield Cache(hygiene, anchors, revocations, changes, store)
    finally:
        await store.close()


async def _set(clocks: Clocks, store: Store) -> None:
    """Set the clock by the database's before anything is judged by it. Raises CannotStart."""
    began = clocks.counting()
    try:
        at = await store.cluster.at()
    except StoreError as problem:
        raise CannotStart(f"cannot open the cache database: {problem}") from None
    if at is not None:
        clocks.heard(at, (began + clocks.counting()) / 2)


def history_bounds(config: Config) -> Bounds:
    """How much history is kept."""
    return Bounds(config.history.keep, config.history.max_size)


def password_of(cache: CacheSection) -> str | None:
    """The password to the database, where a file holds one. Raises CannotStart."""
    file = cache.database_password_file
    try:
        return read_password("cache.database_password_file", file).decode() if file is not None else None
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is no text"
        raise CannotStart(f"cache.database_password_file: {file}: {reason}") from None


def hygiene_of(
    anchors: smime.Anchors | TrustAnchors | None = None, revocations: Revocations | None = None
) -> Mapping[Kind, Hygiene]:
    """The functions of each kind of certificate, pure but for trust anchors and revocation lists: without anchors no
    chain leads to one, without lists no X.509 certificate is revoked."""
    pgp, x509 = ProofCache(openpgp.prove), ProofCache(smime.prove)
    judge = (revocations or Revocations()).judge
    return {
        Kind.OPENPGP: Hygiene(
            clean=openpgp.clean,
            clean_brief=openpgp.clean_brief,
            prove=pgp,
            index=openpgp.index,
            merge=openpgp.merge,
            revocations=openpgp.revocations,
            merge_revocations=openpgp.merge_revocations,
            cut=openpgp.cut,
            learn=pgp.learn,
        ),
        Kind.X509: Hygiene(
            clean=smime.clean,
            prove=lambda octets, now: judge(octets, x509(octets, now), now),
            index=smime.index,
            merge=smime.merge,
            revocations=smime.revocations,
            merge_revocations=smime.merge_revocations,
            learn=x509.learn,
            intermediates=smime.intermediates,
            chained=(anchors or smime.Anchors([])).chained,
        ),
    }


def load_anchors(trust_anchors: str) -> LoadedAnchors:
    """`smime.trust_anchors`: the system's, none, or those of a PEM file. Raises CannotStart."""
    origin, file = origin_of(trust_anchors), _file(trust_anchors)
    if file is None or (trust_anchors == "system" and not file.is_file()):
        return LoadedAnchors(smime.Anchors([]), origin)
    try:
        return LoadedAnchors(smime.Anchors(smime.load_anchors(file.read_bytes())), origin)
    except (OSError, ValueError) as problem:
        raise CannotStart(f"smime.trust_anchors: {file} cannot be used: {problem}") from None


def origin_of(trust_anchors: str) -> tuple[str, Stamp]:
    """What tells whether anchors have to be read again."""
    file = _file(trust_anchors)
    return trust_anchors, stamp_of([file] if file else [])


def _file(trust_anchors: str) -> Path | None:
    system = ssl.get_default_verify_paths().cafile
    return {"none": None, "system": Path(system) if system else None}.get(trust_anchors, Path(trust_anchors))
