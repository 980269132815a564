"""The report, sent every so often by the node that leads: by mail, and to the webhook's receiver.

A mark in the database says for each receiver when it had the last one, so that nodes and restarts send none twice, but
where the service ends between sending and the mark."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from keyserver.config.sections.mail import InviteSection
from keyserver.config.sections.outlook import OutlookSection
from keyserver.events.form import body_of, signed
from keyserver.events.posting import Became, Poster, Target
from keyserver.invite.composing import Mail
from keyserver.invite.problem import NotInvited
from keyserver.invite.relay import Unsure, hand_over, relay_of
from keyserver.outlook.report import Report
from keyserver.outlook.text import Identity, mail_of, text_of, told
from keyserver.store.base import StoreError
from keyserver.store.history import History

LOOK = 60.0  # seconds between two looks whether one is due
AGAIN = 900  # seconds after which a receiver who did not take it gets it again
NUMBER = 0  # in the place of an event's: receivers who know events only pass it over
AHEAD = 86400  # seconds that a mark may lie in the future: beyond, a wrong clock has made it

log = logging.getLogger("keyserver.outlook")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What holds at this moment. target: the webhook; None: there is none."""

    outlook: OutlookSection
    invite: InviteSection
    target: Target | None


class Digest:
    """`run` is one task of the composition root."""

    def __init__(
        self,
        *,
        report: Callable[[int], Awaitable[Report]],
        marks: History,
        wanted: Callable[[], Wanted],
        poster: Poster,
        leads: Callable[[], bool],
        identity: Identity,
        node: str,
        clock: Callable[[], int],
    ) -> None:
        """report: of so many days; marks: where it is kept what was sent when; leads: does this node do what only one
        may? identity: how addresses and fingerprints may stand in it; clock: Unix seconds."""
        self._report = report
        self._marks = marks
        self._wanted = wanted
        self._poster = poster
        self._leads = leads
        self._identity = identity
        self._node = node
        self._clock = clock
        self._sent: dict[str, int] = {}  # by this process
        self._failed: dict[str, int] = {}  # who did not take it, and when that was
        self._trouble = ""

    async def run(self) -> None:
        """Until cancelled; trouble is reported and tried again."""
        try:
            while True:
                try:
                    await self.send_due()
                    self._trouble = ""
                except StoreError as problem:
                    if str(problem) != self._trouble:
                        log.error("the outlook waits for the cache database: %s", problem)
                    self._trouble = str(problem)
                except Exception:  # a fault of ours: lookups go on
                    log.exception("the outlook")
                await asyncio.sleep(LOOK)
        finally:
            await self._poster.close()

    async def send_due(self) -> None:
        """Send it to everybody whose time has come. Raises StoreError."""
        if not self._leads():
            return
        wanted = self._wanted()
        ways: dict[str, Callable[[Report], Awaitable[str]]] = {
            f"outlook {hashlib.sha256(address.encode()).hexdigest()[:16]}": partial(self._mail, wanted, address)
            for address in (wanted.outlook.digest_to if wanted.invite.smtp else ())
        }
        if wanted.outlook.digest_webhook and wanted.target is not None:
            ways["outlook webhook"] = partial(self._post, wanted.target)
        due = [receiver for receiver in ways if await self._due(receiver, wanted.outlook.digest_every)]
        if due:
            report = await self._report(wanted.outlook.days)
            for receiver in due:
                await self._deliver(receiver, ways[receiver], report)

    async def _due(self, receiver: str, every: int) -> bool:
        now = self._clock()
        if 0 <= now - self._failed.get(receiver, now - AGAIN) < AGAIN:
            return False
        marked, sent = await self._marks.cursor(receiver), self._sent.get(receiver)
        if sent is not None and (marked is None or marked < sent):
            await self._marks.move(receiver, sent)
        had = [at for at in (marked, sent) if at is not None and at <= now + AHEAD]
        return not had or now - max(had) >= every

    async def _deliver(self, receiver: str, send: Callable[[Report], Awaitable[str]], report: Report) -> None:
        if why := await send(report):
            log.error("the outlook was not taken, it is tried again in %d minutes: %s", AGAIN // 60, why)
            self._failed[receiver] = self._clock()
            return
        self._failed.pop(receiver, None)
        self._sent[receiver] = report.at
        await self._marks.move(receiver, report.at)
        log.info("the outlook was sent")

    async def _mail(self, wanted: Wanted, address: str, report: Report) -> str:
        """Why it was not taken; empty where it was, or may have been."""
        sender = wanted.invite.sender
        text = text_of(report, self._node, self._identity)
        try:
            relay = await asyncio.to_thread(relay_of, wanted.invite)
            await hand_over(Mail(mail_of(report, text, sender, address), sender, address), relay)
        except Unsure as problem:
            log.warning("the outlook may not have come: %s", problem)
        except NotInvited as problem:
            return f"{self._identity(address)}: {problem}"
        return ""

    async def _post(self, target: Target, report: Report) -> str:
        """The same, by a POST."""
        said = {"id": NUMBER, "what": "outlook", "node": self._node, **told(report, self._identity)}
        body = body_of(said)
        posted = await self._poster.post(target.url, signed(target.secret, NUMBER, self._clock(), body), body)
        return "" if posted.became is Became.DELIVERED else f"the webhook: {posted.why}"
