-- Time-outs of the role, by psql as the superuser. A node says them itself when it connects; behind a pooler it may not
-- (pgbouncer refuses start-up parameters), and says in its log which are missing. They bound what a node that hangs, or a
-- network that swallows, may hold up for all the others.

-- No longer than the longest that a node waits for (lists, `cache purge --all`); without a pooler each connection has
-- less: 1 s for lookups, 5 s for writes.
ALTER ROLE keyserver SET statement_timeout = '60s';
ALTER ROLE keyserver SET lock_timeout = '2s';
-- A node that is stopped within a transaction holds the others up for no longer.
ALTER ROLE keyserver SET idle_in_transaction_session_timeout = '2s';
-- Connections whose other end is gone are noticed, and what they held is free.
ALTER ROLE keyserver SET tcp_keepalives_idle = 5;
ALTER ROLE keyserver SET tcp_keepalives_interval = 2;
ALTER ROLE keyserver SET tcp_keepalives_count = 3;
ALTER ROLE keyserver SET tcp_user_timeout = '5s';
ALTER ROLE keyserver SET client_connection_check_interval = '2s';
-- No statement is long enough for it.
ALTER ROLE keyserver SET jit = off;
