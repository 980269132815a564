"""Inviting the owner of one cached entry to opt in for one address: judged, composed, put on record, sent.

In this order, so that nothing is on record that could not be sent, and nothing is sent that is on no record.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

from keyserver.config.sections.mail import InviteSection
from keyserver.hygiene import Hygiene
from keyserver.invite.composing import Envelope, Mail, compose
from keyserver.invite.problem import NotInvited
from keyserver.invite.relay import NotTaken, hand_over, relay_of
from keyserver.invite.tokens import OCTETS, Token
from keyserver.invite.wording import Request
from keyserver.model import Entry, Kind, Proof, View
from keyserver.policy import Terms, approved_for, in_domains, is_expired, with_subdomains, without_effect
from keyserver.query import name_of
from keyserver.resolver.rules import Rules
from keyserver.store.base import Store
from keyserver.store.invitations import Invitation, Quota, Stage
from keyserver.store.snapshot import Snapshot
from keyserver.usable import unusable

AT_ONCE = 4  # mails on their way to the relay


class Inviting:
    """Whoever calls it has decided that this owner is asked; nobody is asked by itself."""

    def __init__(
        self,
        *,
        store: Store,
        hygiene: Mapping[Kind, Hygiene],
        settings: Callable[[], InviteSection],
        rules: Callable[[], Rules],
        clock: Callable[[], int],
        count: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """settings, rules: those of now; clock: Unix seconds; count: hears the stage to which an invitation came."""
        self._store = store
        self._hygiene = hygiene
        self._settings = settings
        self._rules = rules
        self._clock = clock
        self._count = count
        self._sending = asyncio.Semaphore(AT_ONCE)

    @property
    def possible(self) -> bool:
        """Is there a relay?"""
        return bool(self._settings().smtp)

    async def invite(self, entry: Entry, address: str, made_by: str) -> Invitation:
        """Send an invitation about this entry to this normalised address. Raises NotInvited, StoreError.

        Returns when the relay has taken it. made_by: an administrator's name, or `automatic`."""
        settings, now = self._settings(), self._clock()
        if not self.possible:
            raise NotInvited("nobody is invited here: invite.smtp names no relay")
        octets, entry = await self._octets(entry, address, now)
        confirm = Token(secrets.token_bytes(OCTETS))
        invitation = Invitation(
            id=secrets.token_hex(16),
            address=address,
            fingerprint=entry.fingerprint,
            kind=entry.kind,
            source=entry.source,
            origin=entry.origin,
            made_at=now,
            made_by=made_by,
            expires_at=now + settings.expires,
        )
        mail = await asyncio.to_thread(_composed, invitation, confirm, settings, octets)
        relay = await asyncio.to_thread(relay_of, settings)
        why = await self._store.invitations.prepare(
            invitation, confirm.digest, confirm.withdrawal.digest, quota_of(settings)
        )
        if why is not None:
            raise NotInvited(why)
        self._count(Stage.PREPARED)
        try:
            async with self._sending:
                await hand_over(mail, relay)
        except NotTaken as problem:
            await self._end(invitation, Stage.FAILED, str(problem))
            raise
        return await self._end(invitation, Stage.SENT)

    async def _end(self, invitation: Invitation, stage: Stage, failure: str = "") -> Invitation:
        now = self._clock()
        await self._store.invitations.delivered(invitation.id, now, failure)
        self._count(stage)
        return replace(invitation, stage=stage, changed_at=now, note=failure)

    async def _octets(self, entry: Entry, address: str, now: int) -> tuple[bytes, Entry]:
        """The certificate as this entry alone has it, with every revocation known (rule 9), and the entry of now."""
        if entry.fingerprint in await self._store.blocked():
            raise NotInvited(f"{entry.fingerprint} is blocked")
        snapshot = await self._store.certificate(entry.fingerprint)
        found = _same(entry, snapshot)
        own = self._hygiene[entry.kind]
        octets = own.merge([found.octets], snapshot.revocations.get(entry.fingerprint, b""))
        rules = self._rules()
        if why := unfit(found, own.prove(octets, now), address, now, rules.view(View()), rules.terms):
            raise NotInvited(why)
        return octets, found


def unfit(entry: Entry, proof: Proof, address: str, now: int, view: View, terms: Terms) -> str:
    """Why the owner of an entry is not invited for an address; empty where that makes sense.

    `proof`: of the entry's own copy with every revocation that is known."""
    domain = address.rpartition("@")[2]
    if in_domains(domain, with_subdomains(terms.internal_domains)):
        return f"{domain} is internal, and nobody there is invited"
    if name_of(entry.kind, "addr", address) not in proof.names:
        return f"{entry.fingerprint} does not name {address} now"
    if why := unusable(proof):
        return f"nobody can encrypt to {entry.fingerprint}: {why}"
    if is_expired(entry, now, terms, address):
        return "the entry has expired"
    if approved_for(entry, address):
        return f"{entry.fingerprint} is approved for {address} already"
    why = without_effect(entry, address, view, terms)
    return f"no approval changes this: {why}" if why else ""


def quota_of(settings: InviteSection) -> Quota:
    """One to an address each day, and of those of an hour a quarter, but five at least, to one domain."""
    return Quota(settings.per_hour, per_address=1, per_domain=max(5, settings.per_hour // 4))


def _composed(invitation: Invitation, confirm: Token, settings: InviteSection, octets: bytes) -> Mail:
    request = Request(
        address=invitation.address,
        fingerprint=invitation.fingerprint,
        kind=invitation.kind,
        public_url=settings.public_url,
        confirm=confirm,
        expires_at=invitation.expires_at,
    )
    return compose(Envelope(invitation.id, settings.sender, invitation.made_at), request, octets)


def _same(entry: Entry, snapshot: Snapshot) -> Entry:
    """The entry as it is cached now."""
    for one in snapshot.entries:
        if (one.fingerprint, one.source, one.origin) == (entry.fingerprint, entry.source, entry.origin):
            return one
    raise NotInvited(f"{entry.fingerprint} is not cached from there any more")
