-- Key-changing updates, and values swapped between rows within one transaction and one statement.

-- before
CREATE TABLE t (id int, v text, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, PRIMARY KEY (id) DEFERRABLE);
ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id);
INSERT INTO t SELECT g, 'v' || g, g FROM generate_series(1, 6) g;

-- history
UPDATE t SET u = 7 - u;

UPDATE t SET id = id + 100; UPDATE t SET id = id - 100 WHERE id > 103; UPDATE t SET id = -id WHERE id < 10;

UPDATE t SET id = 0 WHERE id = 101; UPDATE t SET id = 101 WHERE id = 102; UPDATE t SET id = 102 WHERE id = 0; DELETE FROM t WHERE id = 103; INSERT INTO t VALUES (103, 'new', 103);
