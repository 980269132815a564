"""What runs inside the server. A function's number is its version: nodes of two releases may call two of them."""

from __future__ import annotations

from keyserver.store.postgres.writing import CERTIFICATES, DELETING, ROW

PUT = """
CREATE FUNCTION put_1(doc jsonb, parts bytea[], OUT written boolean, OUT xid text, OUT names text[])
LANGUAGE plpgsql VOLATILE
-- Nothing here is looked for but by an index; plans made while the tables were empty would not know that.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $body$
DECLARE
    e jsonb;
    r jsonb;
    row_id bigint;
    was boolean;
    bucket int;
BEGIN
    written := false;
    -- Each statement after these locks sees all that was committed before them.
    PERFORM pg_advisory_xact_lock_shared({deleting});
    FOR bucket IN SELECT value::int FROM jsonb_array_elements_text(doc->'locks') WITH ORDINALITY ORDER BY ordinality
    LOOP
        PERFORM pg_advisory_xact_lock({certificates}, bucket);
    END LOOP;
    IF NOT (doc->>'durable')::boolean THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF generation_1() <> (doc->>'generation')::bigint
        OR EXISTS (
            SELECT 1 FROM jsonb_to_recordset(doc->'known')
                AS k(fingerprint text, source text, origin text, version bigint)
            -- By its fingerprint, whatever the planner thinks of an index that begins with the source.
            LEFT JOIN entry AS x ON x.fingerprint = k.fingerprint
                AND x.source || '' = k.source AND x.origin || '' = k.origin
            WHERE x.version IS DISTINCT FROM k.version
        )
        OR EXISTS (
            SELECT 1 FROM jsonb_to_recordset(doc->'certificates')
                AS k(fingerprint text, revoked bigint, blocked boolean)
            LEFT JOIN revocation AS x USING (fingerprint)
            WHERE x.version IS DISTINCT FROM k.revoked
                OR k.blocked <> EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = k.fingerprint)
        )
    THEN
        RETURN;
    END IF;
    names := ARRAY(
        SELECT value FROM jsonb_array_elements_text(doc->'names')
        UNION SELECT n.name FROM entry AS x JOIN name AS n ON n.entry = x.id
        WHERE x.fingerprint IN (SELECT jsonb_array_elements_text(doc->'touched'))
    );
    FOR r IN SELECT value FROM jsonb_array_elements(doc->'revocations') LOOP
        INSERT INTO revocation AS x (fingerprint, octets) VALUES (r->>'fingerprint', parts[(r->>'part')::int])
            ON CONFLICT (fingerprint) DO UPDATE SET octets = excluded.octets, version = nextval('version');
        DELETE FROM undo_record AS u WHERE u.name IN (
            SELECT unnest(w.names) FROM undo_entry AS w WHERE w.fingerprint = r->>'fingerprint'
        );
        WITH gone AS (
            DELETE FROM undo_entry AS u WHERE u.fingerprint = r->>'fingerprint' RETURNING octet_length(u.octets) AS size
        ) INSERT INTO delta SELECT 'octets', -(size + {row}) FROM gone;
    END LOOP;
    FOR e IN SELECT value FROM jsonb_array_elements(doc->'entries') LOOP
        row_id := (e->>'id')::bigint;
        IF row_id IS NULL THEN
            INSERT INTO delta SELECT 'certificates', 1
                WHERE NOT EXISTS (SELECT 1 FROM entry WHERE fingerprint = e->>'fingerprint');
            INSERT INTO entry (fingerprint, kind, source, origin, at, rank, approved, held, chained, vouchers,
                message_id, identities, folded, address, octets)
            VALUES (e->>'fingerprint', e->>'kind', e->>'source', e->>'origin', (e->>'at')::bigint,
                (e->>'rank')::smallint, (e->>'approved')::boolean, (e->>'held')::boolean, (e->>'chained')::boolean,
                e->>'vouchers', e->>'message_id', e->>'identities', e->>'folded', e->>'address',
                parts[(e->>'part')::int])
            RETURNING id INTO row_id;
        ELSE
            UPDATE entry SET at = (e->>'at')::bigint, rank = (e->>'rank')::smallint,
                approved = (e->>'approved')::boolean, held = (e->>'held')::boolean,
                chained = (e->>'chained')::boolean, vouchers = e->>'vouchers', message_id = e->>'message_id',
                version = nextval('version')
            WHERE id = row_id;
            IF e ? 'part' THEN
                UPDATE entry SET identities = e->>'identities', folded = e->>'folded', address = e->>'address',
                    octets = parts[(e->>'part')::int] WHERE id = row_id;
                DELETE FROM name WHERE entry = row_id;
            END IF;
        END IF;
        INSERT INTO name SELECT value, (e->>'rank')::smallint, (e->>'at')::bigint, row_id, e->>'fingerprint'
            FROM jsonb_array_elements_text(e->'names')
            WHERE value NOT IN (SELECT n.name FROM name AS n WHERE n.entry = row_id);
        PERFORM order_names_1(row_id, (e->>'at')::bigint, (e->>'rank')::smallint, (e->>'claimed')::smallint,
            ARRAY(SELECT jsonb_array_elements_text(e->'vouched')));
        WITH gone AS (
            DELETE FROM undo_entry AS u WHERE u.fingerprint = e->>'fingerprint' AND u.source = e->>'source'
                AND u.origin = e->>'origin' RETURNING octet_length(u.octets) AS size
        ) INSERT INTO delta SELECT 'octets', -(size + {row}) FROM gone;
    END LOOP;
    FOR r IN SELECT value FROM jsonb_array_elements(doc->'records') LOOP
        SELECT q.found INTO was FROM record AS q
            WHERE q.name = r->>'name' AND q.upstream = r->>'upstream' FOR UPDATE;
        IF FOUND THEN
            INSERT INTO delta VALUES (CASE WHEN was THEN 'found' ELSE 'absent' END, -1);
        END IF;
        INSERT INTO delta VALUES (CASE WHEN (r->>'found')::boolean THEN 'found' ELSE 'absent' END, 1);
        INSERT INTO record AS q VALUES (r->>'name', r->>'upstream', (r->>'found')::boolean, (r->>'at')::bigint,
            (r->>'asked_at')::bigint)
        ON CONFLICT (name, upstream) DO UPDATE SET found = excluded.found, at = excluded.at,
            asked_at = greatest(q.asked_at, excluded.asked_at);
        DELETE FROM undo_record AS u WHERE u.name = r->>'name' AND u.upstream = r->>'upstream';
        IF (r->>'found')::boolean THEN
            UPDATE name AS n SET rank = 1 FROM entry AS x
            WHERE n.name = r->>'name' AND n.rank > 1 AND n.entry = x.id AND x.source = 'keyserver'
                AND x.origin = r->>'upstream' AND x.fingerprint IN (SELECT jsonb_array_elements_text(r->'lifts'));
        END IF;
    END LOOP;
    INSERT INTO delta SELECT key, value::bigint FROM jsonb_each_text(doc->'tally') WHERE value::bigint <> 0;
    INSERT INTO change (everything, names) VALUES (false, names);
    xid := pg_current_xact_id()::text;
    written := true;
END
$body$
"""

GENERATION = """
CREATE FUNCTION generation_1() RETURNS bigint LANGUAGE sql STABLE AS $body$
    SELECT (('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint << 40) + deletions
    FROM counter
$body$
"""
"""The deletion counter, with the timeline above it: a replica that was promoted may have lost deletes, and what was
begun before must not pass for later than those."""

ORDER_NAMES = """
CREATE FUNCTION order_names_1(row_id bigint, at_ bigint, rank_ smallint, claimed smallint, vouched text[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
    UPDATE name AS n SET at = at_, rank = w.rank FROM (
        SELECT m.ctid, CASE
            WHEN m.rank = 1 AND EXISTS (
                SELECT 1 FROM record AS q JOIN entry AS x ON x.origin = q.upstream
                WHERE x.id = row_id AND x.source = 'keyserver' AND q.name = m.name AND q.found
            ) THEN 1
            WHEN m.name = ANY(vouched) THEN 1
            WHEN strpos(m.name, ':addr:') > 0 THEN claimed
            ELSE rank_ END AS rank
        FROM name AS m WHERE m.entry = row_id
    ) AS w WHERE n.ctid = w.ctid AND (n.at <> at_ OR n.rank <> w.rank);
END
$body$
"""
"""As `sqlite.put.order_names`; no function of plain SQL, which would be planned at each call."""

_UPDATED = """
            UPDATE entry SET at = (e->>'at')"""
_COPIED = """
            IF e ? 'part' THEN
                UPDATE entry SET identities"""


def _second(put: str) -> str:
    """The next version: tells the history who puts, and when; and a copy before its times, so that it is one event."""
    start, end = put.index(_UPDATED), put.index(_COPIED)
    rest = put.index("        END IF;\n        INSERT INTO name", end)
    put = put[:start] + put[end:rest].rstrip() + put[start:end] + "\n" + put[rest:]
    put = put.replace("FUNCTION put_1(", "FUNCTION put_2(")
    told = [f"    PERFORM set_config('keyserver.{what}', doc->>'{what}', true);\n" for what in ("who", "now")]
    put = put.replace("    names := ARRAY(", "".join(told) + "    names := ARRAY(")
    return put.replace(
        "        row_id := (e->>'id')",
        "        PERFORM set_config('keyserver.now', e->>'now', true);\n        row_id := (e->>'id')",
    )


def _filled(put: str) -> str:
    return (
        put.replace("{deleting}", str(DELETING)).replace("{certificates}", str(CERTIFICATES)).replace("{row}", str(ROW))
    )


PUT_2 = _filled(_second(PUT))

FUNCTIONS = (
    GENERATION,
    ORDER_NAMES,
    _filled(PUT),
)
