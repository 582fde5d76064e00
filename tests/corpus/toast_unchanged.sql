-- A large value that an UPDATE leaves alone is not in the stream; it must not become NULL (pgcopydb 877, 919).

-- before
CREATE TABLE t (id int PRIMARY KEY, big text, small int);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t SELECT g, repeat(md5(g::text), 300), g FROM generate_series(1, 5) g;

-- history
UPDATE t SET small = small + 1;

UPDATE t SET big = repeat('x', 5000) WHERE id = 2; UPDATE t SET small = 0 WHERE id = 2; UPDATE t SET id = 20 WHERE id = 2;

INSERT INTO t VALUES (6, repeat('y', 9000), 1); UPDATE t SET small = 2 WHERE id = 6; DELETE FROM t WHERE id = 1;

UPDATE t SET big = NULL WHERE id = 3; UPDATE t SET small = 7 WHERE id = 3;
