"""`Invitations` in the cache's own SQLite file, on the store's writer, reader and scanner."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from keyserver.store import inviting
from keyserver.store.invitations import MAX_INVITATIONS, Invitation, Quota, Refused, Stage
from keyserver.store.sqlite import removing
from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.writing import Writing

_READ = f"SELECT {', '.join(inviting.COLUMNS)}, number FROM invitation"  # noqa: S608 - our own words


class SqliteInvitations:
    """Promises: see `Invitations`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def prepare(self, invitation: Invitation, confirm: bytes, withdraw: bytes, quota: Quota) -> Refused | None:
        """As `Invitations.prepare`."""
        first = inviting.begun(invitation)

        def put(writing: Writing) -> Refused | None:
            refused = _standing(writing.db, first) or _used_up(writing.db, first, quota)
            if refused is None:
                _put(writing.db, first, confirm, withdraw)
            return refused

        return await self._connections.write(put)

    async def delivered(self, id_: str, now: int, failure: str = "") -> None:
        """As `Invitations.delivered`."""
        stage = Stage.FAILED if failure else Stage.SENT
        sql = "UPDATE invitation SET stage = ?, changed_at = ?, note = ? WHERE id = ? AND stage = 'prepared'"
        await self._connections.write(lambda w: w.db.execute(sql, (str(stage), now, failure, id_)))

    async def bounced(self, id_: str, now: int, why: str) -> bool:
        """As `Invitations.bounced`."""
        sql = (
            "UPDATE invitation SET stage = 'bounced', changed_at = ?, note = ?"  # noqa: S608
            f" WHERE id = ? AND {inviting.IS_OPEN}"
        )
        return await self._connections.write(lambda w: w.db.execute(sql, (now, why, id_)).rowcount) > 0

    async def by_confirm(self, confirm: bytes) -> Invitation | None:
        """As `Invitations.by_confirm`."""
        return await self._connections.read(lambda db: _found(db, "confirm", confirm))

    async def by_withdraw(self, withdraw: bytes) -> Invitation | None:
        """As `Invitations.by_withdraw`."""
        return await self._connections.read(lambda db: _found(db, "withdraw", withdraw))

    async def confirm(self, confirm: bytes, now: int) -> Invitation | Refused:
        """As `Invitations.confirm`."""

        def approve(writing: Writing) -> Invitation | Refused:
            found = _found(writing.db, "confirm", confirm)
            if found is None:
                return Refused.UNKNOWN
            if refused := inviting.unconfirmable(found, now) or _standing(writing.db, found):
                return refused
            removing.approve(writing, found.fingerprint, found.source, found.origin, found.address, now)
            return _keep(writing.db, inviting.confirmed(found, now))

        return await self._connections.write(approve)

    async def withdraw(self, withdraw: bytes, now: int) -> Invitation | Refused:
        """As `Invitations.withdraw`."""

        def delete(writing: Writing) -> Invitation | Refused:
            found = _found(writing.db, "withdraw", withdraw)
            if found is None:
                return Refused.UNKNOWN
            if refused := inviting.irrevocable(found):
                return refused
            removing.delete(writing, found.fingerprint, now, found.source, found.origin, None)
            return _keep(writing.db, inviting.withdrawn(found, now))

        return await self._connections.write(delete)

    async def invitations(
        self, limit: int, before: int | None = None, address: str | None = None
    ) -> Sequence[Invitation]:
        """As `Invitations.invitations`."""
        given = {"number < ?": before, "address = ?": address}
        conditions = {condition: value for condition, value in given.items() if value is not None}
        sql = f"{_READ} WHERE {' AND '.join(conditions) or '1'} ORDER BY number DESC LIMIT ?"
        values = (*conditions.values(), limit)
        rows = await self._connections.read(lambda db: db.execute(sql, values).fetchall(), long=True)
        return tuple(inviting.invitation_of(row) for row in rows)

    async def forget(self, address: str) -> int:
        """As `Invitations.forget`."""

        def erase(writing: Writing) -> int:
            writing.db.set("secure_delete", "ON")
            return writing.db.execute("DELETE FROM invitation WHERE address = ?", (address,)).rowcount

        return await self._connections.write(erase)


def _found(db: sqlite3.Connection, column: str, digest: bytes) -> Invitation | None:
    row = db.execute(f"{_READ} WHERE {column} = ?", (digest,)).fetchone()
    return inviting.invitation_of(row) if row else None


def _standing(db: sqlite3.Connection, invitation: Invitation) -> Refused | None:
    """Why its entry cannot be approved for its address."""
    if db.execute("SELECT 1 FROM block WHERE fingerprint = ?", (invitation.fingerprint,)).fetchone():
        return Refused.BLOCKED
    there = db.execute(
        "SELECT 1 FROM entry AS e JOIN name AS n ON n.entry = e.id"
        " WHERE e.fingerprint = ? AND e.source = ? AND e.origin = ? AND n.name = ?",
        (invitation.fingerprint, str(invitation.source), invitation.origin, inviting.named(invitation)),
    ).fetchone()
    return None if there else Refused.GONE


def _used_up(db: sqlite3.Connection, invitation: Invitation, quota: Quota) -> Refused | None:
    at, ending = invitation.made_at, inviting.suffix(invitation)
    (address,) = db.execute(
        "SELECT count(*) FROM invitation WHERE address = ? AND made_at > ? AND made_at < ? AND stage <> 'failed'",
        (invitation.address, at - inviting.DAY, at + inviting.DAY),
    ).fetchone()
    domain, hour = db.execute(
        "SELECT count(*) FILTER (WHERE substr(address, -length(?1)) = ?1), count(*) FROM invitation"
        " WHERE made_at > ?2 AND made_at < ?3 AND stage <> 'failed'",
        (ending, at - inviting.HOUR, at + inviting.HOUR),
    ).fetchone()
    return inviting.over(quota, address, domain, hour)


def _put(db: sqlite3.Connection, invitation: Invitation, confirm: bytes, withdraw: bytes) -> None:
    db.execute(
        "UPDATE invitation SET stage = 'replaced', changed_at = ?"  # noqa: S608
        f" WHERE address = ? AND fingerprint = ? AND source = ? AND origin = ? AND {inviting.IS_OPEN}",
        (
            *(invitation.made_at, invitation.address),
            *(invitation.fingerprint, str(invitation.source), invitation.origin),
        ),
    )
    columns = ("confirm", "withdraw", *inviting.COLUMNS)
    marks = ", ".join("?" * len(columns))
    sql = f"INSERT INTO invitation ({', '.join(columns)}) VALUES ({marks}) RETURNING number"  # noqa: S608
    number: int = db.execute(sql, (confirm, withdraw, *inviting.row_of(invitation))).fetchall()[0][0]
    if number % inviting.TIDIED == 0:
        idle = f"FROM invitation WHERE {inviting.IS_IDLE}"
        last = f"SELECT number {idle} ORDER BY number DESC LIMIT 1 OFFSET ?"
        db.execute(f"DELETE {idle} AND number <= ({last})", (MAX_INVITATIONS,))


def _keep(db: sqlite3.Connection, invitation: Invitation) -> Invitation:
    """Put on record what has become of it."""
    values = (str(invitation.stage), invitation.changed_at, invitation.confirmed_at, invitation.number)
    db.execute("UPDATE invitation SET stage = ?, changed_at = ?, confirmed_at = ? WHERE number = ?", values)
    return invitation
