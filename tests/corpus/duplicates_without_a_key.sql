-- With FULL and equal rows one change means one row (pgcopydb hits all of them); NULLs and types without equality are part of the row.

-- before
CREATE TABLE t (a int, b text, j json, p point, x xml);
ALTER TABLE t REPLICA IDENTITY FULL;
INSERT INTO t SELECT 1, NULL, '{"k":1}', '(1,2)', '<a/>' FROM generate_series(1, 5);

-- history
DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t);

UPDATE t SET b = 'changed' WHERE ctid = (SELECT min(ctid) FROM t); INSERT INTO t VALUES (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL);

UPDATE t SET a = 2 WHERE a IS NULL AND ctid = (SELECT max(ctid) FROM t); DELETE FROM t WHERE b = 'changed'; UPDATE t SET b = 'x' WHERE a = 1;
