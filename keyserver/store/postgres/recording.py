"""How the database records its own history: tables, and triggers on whatever decides answers. As `sqlite.recording`.

Numbers of events are made from those of their transactions, so that what is before the oldest one under way is whole:
nobody will add an event before it. What changes a certificate takes its lock before it writes anything, so the numbers
of one certificate's events are in the order of its changes. Nodes of an older release record what they do, too: who
did it and when is then what the database knows itself.
"""

# ruff: noqa: S608 - our own words

from __future__ import annotations

from keyserver.store.past import DAY, HOUR, REVOKED

PER_TRANSACTION = 16  # bits of a number, below those of its transaction

_TABLES = (
    # One row. base: added to numbers, in a database whose transactions are numbered from the beginning again.
    """CREATE TABLE history (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        active boolean NOT NULL,
        key bytea NOT NULL,
        whole bigint,
        base bigint NOT NULL DEFAULT 0
    )""",
    "INSERT INTO history (active, key, whole) SELECT true, key, CASE WHEN EXISTS (SELECT 1 FROM entry)"
    " OR EXISTS (SELECT 1 FROM block) OR EXISTS (SELECT 1 FROM revocation) OR EXISTS (SELECT 1 FROM record)"
    " THEN 0 END FROM new_key_1() AS key",
    """CREATE TABLE event (
        number bigint PRIMARY KEY,
        at bigint NOT NULL,
        last bigint NOT NULL,
        what text COLLATE "C" NOT NULL,
        fingerprint text COLLATE "C" NOT NULL DEFAULT '',
        kind text COLLATE "C" NOT NULL DEFAULT '',
        source text COLLATE "C" NOT NULL DEFAULT '',
        origin text COLLATE "C" NOT NULL DEFAULT '',
        address text COLLATE "C" NOT NULL DEFAULT '',
        who text NOT NULL DEFAULT '',
        facts text NOT NULL DEFAULT '{}',
        cached bigint,
        vouchers text NOT NULL DEFAULT '[]',
        chained boolean NOT NULL DEFAULT false,
        detail text NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX event_entry ON event (fingerprint, source, origin, at, number)",
    "CREATE INDEX event_news ON event (number) WHERE what <> 'renewed'",
    "CREATE INDEX event_address ON event (address, number) WHERE address <> ''",
    "CREATE TABLE past_copy (digest bytea PRIMARY KEY, octets bytea NOT NULL)",
    "ALTER TABLE past_copy ALTER COLUMN octets SET STORAGE EXTERNAL",
    """CREATE TABLE past_span (
        fingerprint text COLLATE "C" NOT NULL,
        source text COLLATE "C" NOT NULL,
        origin text COLLATE "C" NOT NULL,
        upto bigint NOT NULL,
        copy bytea NOT NULL,
        PRIMARY KEY (fingerprint, source, origin, upto)
    )""",
    "CREATE INDEX past_span_copy ON past_span (copy)",
    """CREATE TABLE past_name (
        name text COLLATE "C" NOT NULL, fingerprint text COLLATE "C" NOT NULL, PRIMARY KEY (name, fingerprint)
    )""",
    "CREATE INDEX past_name_fingerprint ON past_name (fingerprint)",
    """CREATE TABLE word (
        hash bytea NOT NULL,
        upstream text COLLATE "C" NOT NULL,
        since bigint NOT NULL,
        last bigint NOT NULL,
        word text COLLATE "C" NOT NULL,
        gone bigint,
        PRIMARY KEY (hash, upstream, since)
    )""",
    """CREATE TABLE answering (
        name text COLLATE "C" NOT NULL,
        view text COLLATE "C" NOT NULL,
        fingerprint text COLLATE "C" NOT NULL,
        at bigint NOT NULL,
        PRIMARY KEY (name, view)
    )""",
    "CREATE TABLE past_settings (number bigint PRIMARY KEY, at bigint NOT NULL, settings text NOT NULL)",
    'CREATE TABLE delivery (receiver text COLLATE "C" PRIMARY KEY, number bigint NOT NULL)',
    *(
        f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
        for table in ("event", "word")
    ),
    # What of the row above is copied into another store, and how.
    "CREATE VIEW history_copied AS SELECT 1::bigint AS single, key, whole FROM history"
    " WHERE whole IS NOT NULL OR EXISTS (SELECT 1 FROM event) OR EXISTS (SELECT 1 FROM word)",
    "CREATE RULE history_copied_written AS ON INSERT TO history_copied DO INSTEAD"
    " UPDATE history SET key = NEW.key, whole = NEW.whole",
)

_NEW_KEY = """
CREATE FUNCTION new_key_1() RETURNS bytea LANGUAGE sql VOLATILE AS $body$
    SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
$body$
"""

_NUMBER = f"""
CREATE FUNCTION event_number_1() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    first bigint := (SELECT base FROM history) + (pg_current_xact_id()::text::bigint << {PER_TRANSACTION});
    last bigint;
BEGIN
    SELECT e.number INTO last FROM event AS e WHERE e.number >= first AND e.number < first + {1 << PER_TRANSACTION}
        ORDER BY e.number DESC LIMIT 1;
    RETURN coalesce(last + 1, first);
END
$body$
"""

WHOLE = f"(SELECT base FROM history) + ((pg_snapshot_xmin(pg_current_snapshot())::text)::bigint << {PER_TRANSACTION})"
"""Behind the numbers of all transactions that are over, and of none that is not."""

REBASE = f"""
UPDATE history SET base = n.number + 1 - (x.xid << {PER_TRANSACTION})
FROM (SELECT max(number) AS number FROM event) AS n,
    (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid) AS x
WHERE n.number >= base + (x.xid << {PER_TRANSACTION})
"""
"""Where the events come from another server: new ones are numbered behind them."""

_HASH = """
CREATE FUNCTION history_hash_1(name text) RETURNS bytea LANGUAGE sql STABLE AS $body$
    SELECT substr(sha256(key || sha256(key || convert_to(name, 'UTF8'))), 1, 16) FROM history
$body$
"""

_ACTIVE = """
CREATE FUNCTION recording_1(OUT active boolean, OUT now bigint, OUT act text, OUT who text)
LANGUAGE plpgsql STABLE AS $body$
BEGIN
    act := coalesce(current_setting('keyserver.act', true), '');
    active := act <> 'copying' AND (SELECT h.active FROM history AS h);
    now := nullif(current_setting('keyserver.now', true), '')::bigint;
    who := coalesce(current_setting('keyserver.who', true), '');
END
$body$
"""

_CLOCK = "extract(epoch FROM clock_timestamp())::bigint"

_ASIDE = """
CREATE FUNCTION set_aside_1(fingerprint_ text, source_ text, origin_ text, upto_ bigint, octets_ bytea)
RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    digest_ bytea := substr(sha256(octets_), 1, 16);
BEGIN
    INSERT INTO past_copy VALUES (digest_, octets_) ON CONFLICT DO NOTHING;
    INSERT INTO past_span VALUES (fingerprint_, source_, origin_, coalesce(upto_, -1), digest_)
        ON CONFLICT (fingerprint, source, origin, upto) DO NOTHING;
END
$body$
"""

_PLANS = "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"

_STATE = "kind, source, origin, who, cached, vouchers, chained, detail"
_NEW = "NEW.kind, NEW.source, NEW.origin, told.who, NEW.at, NEW.vouchers, NEW.chained, NEW.message_id"
_LAST = (
    "(SELECT e.number FROM event AS e WHERE e.fingerprint = NEW.fingerprint AND e.source = NEW.source"
    " AND e.origin = NEW.origin ORDER BY e.at DESC, e.number DESC LIMIT 1)"
)


def _standing(column: str) -> str:
    """Vouchers without the times of mails."""
    each = f"json_array_elements({column}::json) AS v"
    return f"(SELECT json_agg(json_build_array(v->0, v->1, v->2, v->3))::text FROM {each})"


_UNCHANGED = (
    "cached IS NOT NULL AND chained = NEW.chained AND (vouchers = NEW.vouchers"
    f" OR {_standing('vouchers')} IS NOT DISTINCT FROM {_standing('NEW.vouchers')})"
)


def _vouched(what: str, says: str, before: str) -> str:
    """An event for each address of which the vouchers now say so, and did not before."""
    return (
        f"INSERT INTO event (number, at, last, what, fingerprint, address, {_STATE})"
        f" SELECT event_number_1(), t, t, '{what}', NEW.fingerprint, v->>0, {_NEW}"
        f" FROM json_array_elements(NEW.vouchers::json) AS v WHERE {says.format('v')} AND NOT EXISTS"
        f" (SELECT 1 FROM json_array_elements({before}::json) AS o WHERE o->>0 = v->>0 AND {says.format('o')});"
    )


_WAITS = "({0}->>2)::boolean AND NOT ({0}->>3)::boolean"
_APPROVED = "({0}->>3)::boolean"


def _function(name: str, body: str, more: str = "") -> str:
    return f"""
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql VOLATILE {_PLANS} AS $body$
DECLARE
    told record;
    t bigint;{more}
BEGIN
    SELECT * INTO told FROM recording_1();
    IF NOT told.active THEN
        RETURN {"OLD" if name.endswith(("gone_1",)) else "NULL"};
    END IF;
    {body}
END
$body$
"""


_ENTRY_NEW = _function(
    "history_entry_new_1",
    f"""
    t := CASE told.act WHEN 'undone' THEN coalesce(told.now, {_CLOCK}) ELSE NEW.at END;
    INSERT INTO event (number, at, last, what, fingerprint, {_STATE}) SELECT event_number_1(), t, t, CASE
        WHEN told.act = 'undone' THEN 'undone'
        WHEN EXISTS (SELECT 1 FROM event AS e WHERE e.fingerprint = NEW.fingerprint AND e.source > '')
            OR EXISTS (SELECT 1 FROM entry AS x WHERE x.fingerprint = NEW.fingerprint AND x.id <> NEW.id) THEN 'cached'
        ELSE 'first seen' END, NEW.fingerprint, {_NEW};
    IF NEW.held AND told.act <> 'undone' THEN
        {_vouched("held", _WAITS, "'[]'")}
    END IF;
    RETURN NULL;""",
)

_ENTRY_CHANGED = _function(
    "history_entry_changed_1",
    f"""
    t := CASE WHEN NEW.at <> OLD.at THEN NEW.at ELSE coalesce(told.now, {_CLOCK}) END;
    UPDATE event SET last = greatest(last, t), cached = NEW.at, vouchers = NEW.vouchers, detail = NEW.message_id
        WHERE number = {_LAST} AND {_UNCHANGED}
        AND (NEW.at BETWEEN cached AND cached + {HOUR} OR (at = last AND at = t));
    IF FOUND THEN
        RETURN NULL;
    END IF;
    IF NEW.held AND NEW.vouchers <> OLD.vouchers THEN
        {_vouched("held", _WAITS, "OLD.vouchers")}
    END IF;
    IF NEW.approved AND NEW.vouchers <> OLD.vouchers THEN
        {_vouched("approved", _APPROVED, "OLD.vouchers")}
    END IF;
    INSERT INTO event (number, at, last, what, fingerprint, {_STATE})
        SELECT event_number_1(), t, t, 'renewed', NEW.fingerprint, {_NEW} WHERE NOT EXISTS
        (SELECT 1 FROM event WHERE number = {_LAST} AND cached = NEW.at AND {_UNCHANGED});
    RETURN NULL;""",
)

_UPTO = (
    "(SELECT max(e.number) FROM event AS e WHERE e.fingerprint = OLD.fingerprint AND e.source = OLD.source"
    " AND e.origin = OLD.origin)"
)

_COPY_CHANGED = _function(
    "history_copy_changed_1",
    f"""
    t := coalesce(told.now, {_CLOCK});
    PERFORM set_aside_1(OLD.fingerprint, OLD.source, OLD.origin, {_UPTO}, OLD.octets);
    INSERT INTO past_name SELECT n.name, n.fingerprint FROM name AS n WHERE n.entry = OLD.id ON CONFLICT DO NOTHING;
    INSERT INTO event (number, at, last, what, fingerprint, {_STATE})
        SELECT event_number_1(), t, t, 'merged', NEW.fingerprint, {_NEW};
    RETURN NULL;""",
)

_ENTRY_GONE = _function(
    "history_entry_gone_1",
    f"""
    t := coalesce(told.now, {_CLOCK});
    PERFORM set_aside_1(OLD.fingerprint, OLD.source, OLD.origin, {_UPTO}, OLD.octets);
    INSERT INTO past_name SELECT n.name, n.fingerprint FROM name AS n WHERE n.entry = OLD.id ON CONFLICT DO NOTHING;
    INSERT INTO event (number, at, last, what, fingerprint, kind, source, origin, who) SELECT event_number_1(), t, t,
        CASE told.act WHEN 'expired' THEN 'expired' ELSE 'deleted' END, OLD.fingerprint, OLD.kind, OLD.source,
        OLD.origin, told.who;
    RETURN OLD;""",
)

_KIND = "coalesce((SELECT x.kind FROM entry AS x WHERE x.fingerprint = {}.fingerprint LIMIT 1), '')"

_REVOKED = _function(
    "history_revoked_1",
    f"""
    t := coalesce(told.now, {_CLOCK});
    IF TG_OP = 'UPDATE' THEN
        PERFORM set_aside_1(OLD.fingerprint, '{REVOKED}', '', (SELECT max(e.number) FROM event AS e
            WHERE e.fingerprint = OLD.fingerprint AND e.source = '' AND e.what = 'revoked'), OLD.octets);
    END IF;
    INSERT INTO event (number, at, last, what, fingerprint, kind, who)
        SELECT event_number_1(), t, t, 'revoked', NEW.fingerprint, {_KIND.format("NEW")}, told.who;
    RETURN NULL;""",
)

_BLOCKED = _function(
    "history_blocked_1",
    f"""
    IF TG_OP = 'DELETE' THEN
        t := coalesce(told.now, {_CLOCK});
        INSERT INTO event (number, at, last, what, fingerprint, kind, who)
            SELECT event_number_1(), t, t, 'unblocked', OLD.fingerprint, {_KIND.format("OLD")}, told.who;
    ELSE
        INSERT INTO event (number, at, last, what, fingerprint, kind, who, facts) SELECT event_number_1(), NEW.at,
            NEW.at, 'blocked', NEW.fingerprint, {_KIND.format("NEW")}, told.who,
            json_build_object('reason', NEW.reason)::text;
    END IF;
    RETURN NULL;""",
)

_PAUSED = _function(
    "history_paused_1",
    f"""
    IF TG_OP = 'DELETE' THEN
        t := coalesce(told.now, {_CLOCK});
        INSERT INTO event (number, at, last, what, origin, who)
            VALUES (event_number_1(), t, t, 'resumed', OLD.upstream, told.who);
    ELSE
        INSERT INTO event (number, at, last, what, origin, who)
            VALUES (event_number_1(), NEW.at, NEW.at, 'paused', NEW.upstream, told.who);
    END IF;
    RETURN NULL;""",
)

_SAY = f"""
CREATE FUNCTION say_1(name_ text, upstream_ text, word_ text, since_ bigint, at_ bigint) RETURNS void
LANGUAGE plpgsql VOLATILE {_PLANS} AS $body$
DECLARE
    h bytea := history_hash_1(name_);
BEGIN
    UPDATE word SET last = greatest(last, at_) WHERE hash = h AND upstream = upstream_ AND since =
        (SELECT w.since FROM word AS w WHERE w.hash = h AND w.upstream = upstream_ ORDER BY w.since DESC LIMIT 1)
        AND word = word_ AND gone IS NULL AND at_ - last <= {DAY};
    IF NOT FOUND THEN
        INSERT INTO word AS w VALUES (h, upstream_, since_, at_, word_, NULL)
            ON CONFLICT (hash, upstream, since) DO UPDATE SET last = greatest(w.last, excluded.last),
            word = excluded.word, gone = NULL WHERE excluded.word <> 'failed';
    END IF;
END
$body$
"""

_SAID = _function(
    "history_said_1",
    f"""
    IF TG_OP = 'DELETE' THEN
        h := history_hash_1(OLD.name);
        UPDATE word SET gone = coalesce(told.now, {_CLOCK}) WHERE hash = h AND upstream = OLD.upstream AND since =
            (SELECT w.since FROM word AS w WHERE w.hash = h AND w.upstream = OLD.upstream AND w.word <> 'failed'
            ORDER BY w.since DESC LIMIT 1);
    ELSE
        t := CASE told.act WHEN 'undone' THEN coalesce(told.now, {_CLOCK}) ELSE NEW.at END;
        PERFORM say_1(NEW.name, NEW.upstream, CASE WHEN NEW.found THEN 'found' ELSE 'absent' END, t, NEW.at);
    END IF;
    RETURN NULL;""",
    "\n    h bytea;",
)


def _trigger(name: str, when: str, table: str, condition: str = "true") -> str:
    return f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}_1()"


_CHANGES = "OLD.at <> NEW.at OR OLD.vouchers <> NEW.vouchers OR OLD.chained <> NEW.chained"

_TRIGGERS = (
    _trigger("history_entry_new", "AFTER INSERT", "entry"),
    _trigger("history_entry_changed", "AFTER UPDATE OF at, vouchers, chained", "entry", _CHANGES),
    _trigger("history_copy_changed", "AFTER UPDATE OF octets", "entry", "OLD.octets <> NEW.octets"),
    _trigger("history_entry_gone", "BEFORE DELETE", "entry"),
    _trigger("history_revoked", "AFTER INSERT OR UPDATE OF octets", "revocation"),
    _trigger("history_blocked", "AFTER INSERT OR UPDATE OR DELETE", "block"),
    _trigger("history_paused", "AFTER INSERT OR DELETE", "pause"),
    _trigger("history_said", "AFTER INSERT OR UPDATE OF found, at OR DELETE", "record"),
)

ERASED = {
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
    _NEW_KEY,
    *_TABLES,
    _NUMBER,
    _HASH,
    _ACTIVE,
    _ASIDE,
    _SAY,
    *(_ENTRY_NEW, _ENTRY_CHANGED, _COPY_CHANGED, _ENTRY_GONE, _REVOKED, _BLOCKED, _PAUSED, _SAID),
    *_TRIGGERS,
)
