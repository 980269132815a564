"""How an SQLite file records its own history: tables, and triggers on whatever decides answers.

Octets and names of a copy are set aside when it goes, not when it comes: `past_span` says up to which event an entry
had them, and what no span covers is the living copy. Revocations are set aside in the same way, as of a source
`REVOKED`. What the triggers call is registered on each connection of ours that writes (`session`): other programs,
the shell of SQLite too, can read such a file, but not change entries and records in it.
"""

# ruff: noqa: S608 - our own words

from __future__ import annotations

from keyserver.store.past import COPY, DAY, HOUR, REVOKED

_CLOCK = "CAST(strftime('%s', 'now') AS INTEGER)"  # where no caller has said what time it is
_ON = "(SELECT active FROM history) AND history_act() <> 'copying'"
_INSERTED = "coalesce(history_now(), NEW.at)"
_UPDATED = f"coalesce(history_now(), CASE WHEN NEW.at <> OLD.at THEN NEW.at ELSE {_CLOCK} END)"
_NOW = f"coalesce(history_now(), {_CLOCK})"
_STATE = "kind, source, origin, who, cached, vouchers, chained, detail"
_OF_NEW = "NEW.kind, NEW.source, NEW.origin, history_who(), NEW.at, NEW.vouchers, NEW.chained, NEW.message_id"
_THIS = "fingerprint = NEW.fingerprint AND source = NEW.source AND origin = NEW.origin"
_LAST = f"(SELECT number FROM event WHERE {_THIS} ORDER BY at DESC, number DESC LIMIT 1)"


def _standing(column: str) -> str:
    """Vouchers without the times of mails."""
    return f"(SELECT json_group_array(json_remove(value, '$[4]')) FROM json_each({column}))"


_UNCHANGED = (
    f"cached IS NOT NULL AND chained = NEW.chained AND"
    f" (vouchers = NEW.vouchers OR {_standing('vouchers')} = {_standing('NEW.vouchers')})"
)
_WAITS = "json_extract({}.value, '$[2]') AND NOT json_extract({}.value, '$[3]')"
_APPROVED = "json_extract({}.value, '$[3]')"


def _vouched(now: str, what: str, says: str, before: str | None) -> str:
    """An event for each address of which the vouchers now say so, and did not before."""
    new, old = says.replace("{}", "v"), says.replace("{}", "o")
    known = ""
    if before is not None:
        same = "json_extract(o.value, '$[0]') = json_extract(v.value, '$[0]')"
        known = f" AND NOT EXISTS (SELECT 1 FROM json_each({before}) AS o WHERE {same} AND {old})"
    return (
        f"INSERT INTO event (at, last, what, fingerprint, address, {_STATE})"
        f" SELECT {now}, {now}, '{what}', NEW.fingerprint, json_extract(v.value, '$[0]'), {_OF_NEW}"
        f" FROM json_each(NEW.vouchers) AS v WHERE {new}{known};"
    )


def _set_aside(fingerprint: str, source: str, origin: str, octets: str) -> str:
    """Octets that were those of all events so far. No OR IGNORE: a trigger has the outer statement's way with it."""
    return (
        f"INSERT INTO past_copy SELECT history_digest({octets}), {octets} WHERE {octets} IS NOT NULL"
        f" ON CONFLICT DO NOTHING; INSERT INTO past_span SELECT {fingerprint}, {source}, {origin},"
        f" coalesce((SELECT max(number) FROM event), -1), history_digest({octets}) WHERE {octets} IS NOT NULL"
        " ON CONFLICT DO NOTHING;"
    )


_HASH = "history_hash((SELECT key FROM history), {}.name)"
_WORD = "CASE WHEN NEW.found THEN 'found' ELSE 'absent' END"

SAY = (
    "UPDATE word SET last = max(last, {at}) WHERE hash = {hash} AND upstream = {upstream} AND since ="
    " (SELECT max(since) FROM word WHERE hash = {hash} AND upstream = {upstream})"
    f" AND word = {{word}} AND gone IS NULL AND {{at}} - last <= {DAY}",
    "INSERT INTO word SELECT {hash}, {upstream}, {since}, {at}, {word}, NULL WHERE changes() = 0"
    " ON CONFLICT DO UPDATE SET last = max(last, excluded.last), word = excluded.word, gone = NULL",
)
"""An upstream's word: it goes on, or begins."""

_SINCE = f"CASE history_act() WHEN 'undone' THEN {_NOW} ELSE NEW.at END"
_SAY = (
    "; ".join(SAY).format(hash=_HASH.format("NEW"), upstream="NEW.upstream", at="NEW.at", word=_WORD, since=_SINCE)
    + ";"
)

TRIGGERS = {
    "history_entry_new": f"""AFTER INSERT ON entry WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, fingerprint, {_STATE}) SELECT {_INSERTED}, {_INSERTED}, CASE
            WHEN history_act() = 'undone' THEN 'undone'
            WHEN EXISTS (SELECT 1 FROM event WHERE fingerprint = NEW.fingerprint AND source > '')
                OR EXISTS (SELECT 1 FROM entry WHERE fingerprint = NEW.fingerprint AND id <> NEW.id) THEN 'cached'
            ELSE 'first seen' END, NEW.fingerprint, {_OF_NEW};
        {_vouched(_INSERTED, "held", f"NEW.held AND history_act() <> 'undone' AND {_WAITS}", None)} END""",
    # It goes on as it was for up to an hour, or what is new of it is told.
    "history_entry_changed": f"""AFTER UPDATE OF at, vouchers, chained ON entry WHEN
        (NEW.at <> OLD.at OR NEW.vouchers <> OLD.vouchers OR NEW.chained <> OLD.chained) AND {_ON} BEGIN
        UPDATE event SET last = max(last, {_UPDATED}), cached = NEW.at, vouchers = NEW.vouchers,
            detail = NEW.message_id WHERE number = {_LAST} AND {_UNCHANGED}
            AND (NEW.at BETWEEN cached AND cached + {HOUR} OR (at = last AND at = {_UPDATED}));
        {_vouched(_UPDATED, "held", f"NEW.held AND {_WAITS}", "OLD.vouchers")}
        {_vouched(_UPDATED, "approved", f"NEW.approved AND {_APPROVED}", "OLD.vouchers")}
        INSERT INTO event (at, last, what, fingerprint, {_STATE})
            SELECT {_UPDATED}, {_UPDATED}, 'renewed', NEW.fingerprint, {_OF_NEW} WHERE NOT EXISTS
            (SELECT 1 FROM event WHERE number = {_LAST} AND cached = NEW.at AND {_UNCHANGED}); END""",
    "history_copy_changed": f"""AFTER UPDATE OF octets ON copy WHEN NEW.octets <> OLD.octets AND {_ON} BEGIN
        {
        _set_aside(
            "(SELECT fingerprint FROM entry WHERE id = NEW.entry)",
            "(SELECT source FROM entry WHERE id = NEW.entry)",
            "(SELECT origin FROM entry WHERE id = NEW.entry)",
            "OLD.octets",
        )
    }
        INSERT INTO past_name SELECT n.name, e.fingerprint FROM entry AS e JOIN name AS n ON n.entry = e.id
            WHERE e.id = NEW.entry ON CONFLICT DO NOTHING;
        INSERT INTO event (at, last, what, fingerprint, {_STATE}) SELECT {_NOW}, {_NOW}, 'merged', fingerprint, kind,
            source, origin, history_who(), at, vouchers, chained, message_id FROM entry WHERE id = NEW.entry; END""",
    "history_entry_gone": f"""BEFORE DELETE ON entry WHEN {_ON} BEGIN
        {_set_aside("OLD.fingerprint", "OLD.source", "OLD.origin", "(SELECT octets FROM copy WHERE entry = OLD.id)")}
        INSERT INTO past_name SELECT name, OLD.fingerprint FROM name WHERE entry = OLD.id ON CONFLICT DO NOTHING;
        INSERT INTO event (at, last, what, fingerprint, kind, source, origin, who) SELECT {_NOW}, {_NOW},
            CASE history_act() WHEN 'expired' THEN 'expired' ELSE 'deleted' END, OLD.fingerprint, OLD.kind,
            OLD.source, OLD.origin, history_who(); END""",
    "history_revoked": f"""AFTER INSERT ON revocation WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, fingerprint, kind, who) SELECT {_NOW}, {_NOW}, 'revoked', NEW.fingerprint,
            coalesce((SELECT kind FROM entry WHERE fingerprint = NEW.fingerprint LIMIT 1), ''), history_who();
        END""",
    "history_revoked_more": f"""AFTER UPDATE OF octets ON revocation WHEN NEW.octets <> OLD.octets AND {_ON} BEGIN
        {_set_aside("OLD.fingerprint", f"'{REVOKED}'", "''", "OLD.octets")}
        INSERT INTO event (at, last, what, fingerprint, kind, who) SELECT {_NOW}, {_NOW}, 'revoked', NEW.fingerprint,
            coalesce((SELECT kind FROM entry WHERE fingerprint = NEW.fingerprint LIMIT 1), ''), history_who();
        END""",
    **{
        f"history_blocked_{place}": f"""{when} ON block WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, fingerprint, kind, who, facts) SELECT NEW.at, NEW.at, 'blocked',
            NEW.fingerprint, coalesce((SELECT kind FROM entry WHERE fingerprint = NEW.fingerprint LIMIT 1), ''),
            history_who(), json_object('reason', NEW.reason); END"""
        for place, when in (("new", "AFTER INSERT"), ("again", "AFTER UPDATE OF at, reason"))
    },
    "history_unblocked": f"""AFTER DELETE ON block WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, fingerprint, kind, who) SELECT {_NOW}, {_NOW}, 'unblocked', OLD.fingerprint,
            coalesce((SELECT kind FROM entry WHERE fingerprint = OLD.fingerprint LIMIT 1), ''), history_who();
        END""",
    "history_paused": f"""AFTER INSERT ON pause WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, origin, who) VALUES
            (NEW.at, NEW.at, 'paused', NEW.upstream, history_who()); END""",
    "history_resumed": f"""AFTER DELETE ON pause WHEN {_ON} BEGIN
        INSERT INTO event (at, last, what, origin, who) VALUES
            ({_NOW}, {_NOW}, 'resumed', OLD.upstream, history_who()); END""",
    "history_said_new": f"AFTER INSERT ON record WHEN {_ON} BEGIN {_SAY} END",
    "history_said": f"AFTER UPDATE OF found, at ON record WHEN {_ON} BEGIN {_SAY} END",
    "history_forgotten": f"""AFTER DELETE ON record WHEN {_ON} BEGIN
        UPDATE word SET gone = {_NOW} WHERE hash = {_HASH.format("OLD")} AND upstream = OLD.upstream AND since = (SELECT
            max(since) FROM word WHERE hash = {_HASH.format("OLD")} AND upstream = OLD.upstream AND word <> 'failed');
        END""",
    **{
        f"history_{table}_{when.lower()}": f"""AFTER {when} ON {table} BEGIN
        UPDATE history SET {change}; END"""
        for table, when, change in (
            ("event", "DELETE", "events = events - 1"),
            ("past_copy", "INSERT", f"octets = octets + length(NEW.octets) + {COPY}"),
            ("past_copy", "DELETE", f"octets = octets - length(OLD.octets) - {COPY}"),
        )
    },
}
"""Name -> when and what. Those on tables of the history itself keep its counts, at no cost for what is only added."""

CREATE = tuple(f"CREATE TRIGGER {name} {text}" for name, text in TRIGGERS.items())

TABLES = {
    "event": "number",
    "word": "hash, upstream, since",
    "past_span": "fingerprint, source, origin, upto",
    "past_copy": "digest",
    "past_name": "name, fingerprint",
    "answering": "name, view",
    "past_settings": "number",
    "recipient": "hash",
}
"""What is erased with the history, and its keys; receivers know on where they are."""

RECORDING = (
    # One row. whole: NULL, since the first event; 0, what was there before is still to be taken down. key: of the
    # hashes of queries. events: those that there are, less the numbers that were given; words: how many there were when
    # they were counted last; octets: of past copies.
    """CREATE TABLE history (
        single INTEGER PRIMARY KEY CHECK (single = 1),
        active INTEGER NOT NULL,
        key BLOB NOT NULL,
        whole INTEGER,
        events INTEGER NOT NULL DEFAULT 0,
        words INTEGER NOT NULL DEFAULT 0,
        octets INTEGER NOT NULL DEFAULT 0
    )""",
    "INSERT INTO history (single, active, key, whole) SELECT 1, 1, randomblob(32), CASE WHEN t THEN 0 END"
    " FROM (SELECT EXISTS (SELECT 1 FROM entry) OR EXISTS (SELECT 1 FROM block)"
    " OR EXISTS (SELECT 1 FROM revocation) OR EXISTS (SELECT 1 FROM record) AS t)",
    # Each event of an entry (source is not empty) says how it was from then on; cached, its time: NULL, it is gone.
    # Numbers below zero: of what was there when the history began.
    """CREATE TABLE event (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        last INTEGER NOT NULL,
        what TEXT NOT NULL,
        fingerprint TEXT NOT NULL DEFAULT '',
        kind TEXT NOT NULL DEFAULT '',
        source TEXT NOT NULL DEFAULT '',
        origin TEXT NOT NULL DEFAULT '',
        address TEXT NOT NULL DEFAULT '',
        who TEXT NOT NULL DEFAULT '',
        facts TEXT NOT NULL DEFAULT '{}',
        cached INTEGER,
        vouchers TEXT NOT NULL DEFAULT '[]',
        chained INTEGER NOT NULL DEFAULT 0,
        detail TEXT NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX event_entry ON event (fingerprint, source, origin, at)",
    "CREATE INDEX event_address ON event (address, number) WHERE address <> ''",
    "CREATE TABLE past_copy (digest BLOB PRIMARY KEY, octets BLOB NOT NULL)",
    """CREATE TABLE past_span (
        fingerprint TEXT NOT NULL,
        source TEXT NOT NULL,
        origin TEXT NOT NULL,
        upto INTEGER NOT NULL,
        copy BLOB NOT NULL,
        PRIMARY KEY (fingerprint, source, origin, upto)
    ) WITHOUT ROWID""",
    "CREATE INDEX past_span_copy ON past_span (copy)",
    """CREATE TABLE past_name (
        name TEXT NOT NULL, fingerprint TEXT NOT NULL, PRIMARY KEY (name, fingerprint)
    ) WITHOUT ROWID""",
    "CREATE INDEX past_name_fingerprint ON past_name (fingerprint)",
    # What an upstream said, unchanged from since to last; gone: when its record was forgotten.
    """CREATE TABLE word (
        hash BLOB NOT NULL,
        upstream TEXT NOT NULL,
        since INTEGER NOT NULL,
        last INTEGER NOT NULL,
        word TEXT NOT NULL,
        gone INTEGER,
        PRIMARY KEY (hash, upstream, since)
    ) WITHOUT ROWID""",
    """CREATE TABLE answering (
        name TEXT NOT NULL,
        view TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (name, view)
    ) WITHOUT ROWID""",
    "CREATE TABLE past_settings (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, settings TEXT NOT NULL)",
    "CREATE TABLE delivery (receiver TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    # What of the row above is copied into another store, and how.
    "CREATE VIEW history_copied AS SELECT 1 AS single, key, whole FROM history"
    " WHERE whole IS NOT NULL OR EXISTS (SELECT 1 FROM event) OR EXISTS (SELECT 1 FROM word)",
    "CREATE TRIGGER history_copied_written INSTEAD OF INSERT ON history_copied BEGIN"
    " UPDATE history SET key = NEW.key, whole = NEW.whole; END",
    *CREATE,
)
