"""`Invitations` in the cache's own PostgreSQL database, which all nodes share.

What decides about them has the deletes' lock alone: so do the quota and the order of numbers hold in the whole cluster,
and nothing is put, blocked or deleted between a look at an entry and its approval.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyserver.store import inviting
from keyserver.store.invitations import MAX_INVITATIONS, Invitation, Quota, Refused, Stage
from keyserver.store.postgres import removing
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing

_READ = f"SELECT {', '.join(inviting.COLUMNS)}, number FROM invitation"  # noqa: S608 - our own words


class PostgresInvitations:
    """Promises: see `Invitations`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def prepare(self, invitation: Invitation, confirm: bytes, withdraw: bytes, quota: Quota) -> Refused | None:
        """As `Invitations.prepare`."""
        first = inviting.begun(invitation)

        async def put(writing: Writing) -> Refused | None:
            refused = await _standing(writing.db, first) or await _used_up(writing.db, first, quota)
            if refused is None:
                await _put(writing.db, first, confirm, withdraw)
            return refused

        return await self._connections.write(put, exclusive=True)

    async def delivered(self, id_: str, now: int, failure: str = "") -> None:
        """As `Invitations.delivered`."""
        stage = Stage.FAILED if failure else Stage.SENT
        sql = "UPDATE invitation SET stage = $1, changed_at = $2, note = $3 WHERE id = $4 AND stage = 'prepared'"
        await self._connections.write(lambda w: w.db.execute(sql, str(stage), now, text(failure), text(id_)))

    async def bounced(self, id_: str, now: int, why: str) -> bool:
        """As `Invitations.bounced`."""
        sql = (
            "UPDATE invitation SET stage = 'bounced', changed_at = $1, note = $2"  # noqa: S608
            f" WHERE id = $3 AND {inviting.IS_OPEN} RETURNING true"
        )
        return bool(await self._connections.write(lambda w: w.db.fetchval(sql, now, text(why), text(id_))))

    async def by_confirm(self, confirm: bytes) -> Invitation | None:
        """As `Invitations.by_confirm`."""
        return await self._connections.read(lambda db: _found(db, "confirm", confirm))

    async def by_withdraw(self, withdraw: bytes) -> Invitation | None:
        """As `Invitations.by_withdraw`."""
        return await self._connections.read(lambda db: _found(db, "withdraw", withdraw))

    async def confirm(self, confirm: bytes, now: int) -> Invitation | Refused:
        """As `Invitations.confirm`."""

        async def approve(writing: Writing) -> Invitation | Refused:
            found = await _found(writing.db, "confirm", confirm)
            if found is None:
                return Refused.UNKNOWN
            if refused := inviting.unconfirmable(found, now) or await _standing(writing.db, found):
                return refused
            await removing.approve(writing, found.fingerprint, found.source, found.origin, found.address, now)
            return await _keep(writing.db, inviting.confirmed(found, now))

        return await self._connections.write(approve, exclusive=True)

    async def withdraw(self, withdraw: bytes, now: int) -> Invitation | Refused:
        """As `Invitations.withdraw`."""

        async def delete(writing: Writing) -> Invitation | Refused:
            found = await _found(writing.db, "withdraw", withdraw)
            if found is None:
                return Refused.UNKNOWN
            if refused := inviting.irrevocable(found):
                return refused
            await removing.delete(writing, found.fingerprint, now, found.source, found.origin, None)
            return await _keep(writing.db, inviting.withdrawn(found, now))

        return await self._connections.write(delete, exclusive=True)

    async def invitations(
        self, limit: int, before: int | None = None, address: str | None = None
    ) -> Sequence[Invitation]:
        """As `Invitations.invitations`."""
        given = {"number <": before, "address =": None if address is None else text(address)}
        chosen = {condition: value for condition, value in given.items() if value is not None}
        where = " AND ".join(f"{condition} ${place}" for place, condition in enumerate(chosen, 1)) or "true"
        sql = f"{_READ} WHERE {where} ORDER BY number DESC LIMIT ${len(chosen) + 1}"
        rows = await self._connections.read(lambda db: db.fetch(sql, *chosen.values(), limit), long=True)
        return tuple(inviting.invitation_of(row) for row in rows)

    async def forget(self, address: str) -> int:
        """As `Invitations.forget`."""
        sql = "DELETE FROM invitation WHERE address = $1"
        status = await self._connections.write(lambda w: w.db.execute(sql, text(address)))
        return int(status.rpartition(" ")[2])


async def _found(db: Connection, column: str, digest: bytes) -> Invitation | None:
    row = await db.fetchrow(f"{_READ} WHERE {column} = $1", digest)
    return inviting.invitation_of(row) if row else None


async def _standing(db: Connection, invitation: Invitation) -> Refused | None:
    """Why its entry cannot be approved for its address."""
    fingerprint = text(invitation.fingerprint)
    if await db.fetchval("SELECT true FROM block WHERE fingerprint = $1", fingerprint):
        return Refused.BLOCKED
    there = await db.fetchval(
        "SELECT true FROM entry AS e JOIN name AS n ON n.entry = e.id"
        " WHERE e.fingerprint = $1 AND e.source = $2 AND e.origin = $3 AND n.name = $4",
        fingerprint,
        str(invitation.source),
        text(invitation.origin),
        text(inviting.named(invitation)),
    )
    return None if there else Refused.GONE


async def _used_up(db: Connection, invitation: Invitation, quota: Quota) -> Refused | None:
    at, ending = invitation.made_at, text(inviting.suffix(invitation))
    address = await db.fetchval(
        "SELECT count(*) FROM invitation WHERE address = $1 AND made_at > $2 AND made_at < $3 AND stage <> 'failed'",
        text(invitation.address),
        at - inviting.DAY,
        at + inviting.DAY,
    )
    domain, hour = await db.fetchrow(
        "SELECT count(*) FILTER (WHERE right(address, length($1)) = $1), count(*) FROM invitation"
        " WHERE made_at > $2 AND made_at < $3 AND stage <> 'failed'",
        ending,
        at - inviting.HOUR,
        at + inviting.HOUR,
    )
    return inviting.over(quota, address, domain, hour)


async def _put(db: Connection, invitation: Invitation, confirm: bytes, withdraw: bytes) -> None:
    await db.execute(
        "UPDATE invitation SET stage = 'replaced', changed_at = $1"  # noqa: S608
        f" WHERE address = $2 AND fingerprint = $3 AND source = $4 AND origin = $5 AND {inviting.IS_OPEN}",
        invitation.made_at,
        text(invitation.address),
        text(invitation.fingerprint),
        str(invitation.source),
        text(invitation.origin),
    )
    columns = ("confirm", "withdraw", *inviting.COLUMNS)
    marks = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    sql = f"INSERT INTO invitation ({', '.join(columns)}) VALUES ({marks}) RETURNING number"  # noqa: S608
    row = [text(value) if isinstance(value, str) else value for value in inviting.row_of(invitation)]
    number: int = await db.fetchval(sql, confirm, withdraw, *row)
    if number % inviting.TIDIED == 0:
        idle = f"FROM invitation WHERE {inviting.IS_IDLE}"
        last = f"SELECT number {idle} ORDER BY number DESC LIMIT 1 OFFSET $1"
        await db.execute(f"DELETE {idle} AND number <= ({last})", MAX_INVITATIONS)


async def _keep(db: Connection, invitation: Invitation) -> Invitation:
    """Put on record what has become of it."""
    await db.execute(
        "UPDATE invitation SET stage = $1, changed_at = $2, confirmed_at = $3 WHERE number = $4",
        str(invitation.stage),
        invitation.changed_at,
        invitation.confirmed_at,
        invitation.number,
    )
    return invitation
