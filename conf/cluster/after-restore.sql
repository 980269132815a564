-- After pg_restore or a dump read into another server, before a node starts: that server counts its transactions anew,
-- and what nodes were told by the old one's numbers would be new to them for ever. Nothing cached is in these tables.
BEGIN;
TRUNCATE change;
UPDATE tidied SET xid = '0';
COMMIT;
