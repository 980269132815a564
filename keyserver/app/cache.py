"""The cache: the store, what is done to certificates in it, and who hears of its changes."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from keyserver import openpgp, smime
from keyserver.app.context import CannotStart, Context
from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Kind
from keyserver.resolver.proof_cache import ProofCache
from keyserver.store.base import Store, StoreRefused
from keyserver.store.opening import open_store


@dataclass(frozen=True, slots=True)
class Cache:
    """An open store and what belongs to it."""

    hygiene: Mapping[Kind, Hygiene]
    changes: Changes
    store: Store


@contextlib.asynccontextmanager
async def open_cache(context: Context) -> AsyncIterator[Cache]:
    """The cache, until the block ends. Raises CannotStart."""
    config = context.config
    hygiene = hygiene_of(anchors_of(config.smime.trust_anchors))
    changes = Changes()
    try:
        store = await open_store(config.cache.database, hygiene, changes, config.cache.max_size)
    except StoreRefused as problem:
        raise CannotStart(str(problem)) from None
    try:
        yield Cache(hygiene, changes, store)
    finally:
        await store.close()


def hygiene_of(anchors: smime.Anchors | None = None) -> Mapping[Kind, Hygiene]:
    """The pure functions of each kind of certificate; without anchors no chain leads to one."""
    pgp, x509 = ProofCache(openpgp.prove), ProofCache(smime.prove)
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
            prove=x509,
            index=smime.index,
            merge=smime.merge,
            revocations=smime.revocations,
            merge_revocations=smime.merge_revocations,
            learn=x509.learn,
            intermediates=smime.intermediates,
            chained=(anchors or smime.Anchors([])).chained,
        ),
    }


def anchors_of(trust_anchors: str) -> smime.Anchors:
    """`smime.trust_anchors`: the system's, none, or those of a PEM file. Raises CannotStart."""
    if trust_anchors == "none":
        return smime.Anchors([])
    system = ssl.get_default_verify_paths().cafile
    file = Path(system) if trust_anchors == "system" and system else Path(trust_anchors)
    if trust_anchors == "system" and not file.is_file():
        return smime.Anchors([])
    try:
        return smime.Anchors(smime.load_anchors(file.read_bytes()))
    except (OSError, ValueError) as problem:
        raise CannotStart(f"smime.trust_anchors: {file} cannot be used: {problem}") from None
