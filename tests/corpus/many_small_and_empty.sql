-- Empty transactions, transactions of tables that are not streamed, and messages of others in between.

-- before
CREATE TABLE t (id int PRIMARY KEY);
CREATE UNLOGGED TABLE aside (id int);

-- history
SELECT txid_current();

SELECT pg_logical_emit_message(true, 'someone', 'else'); INSERT INTO t VALUES (1);

SELECT pg_logical_emit_message(false, 'pgm.marker', 'not ours'); SELECT 1;

CREATE TEMP TABLE gone (a int); INSERT INTO gone VALUES (1); INSERT INTO t VALUES (2);
