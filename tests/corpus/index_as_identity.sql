-- REPLICA IDENTITY USING INDEX: old rows hold its columns and not those of the primary key.

-- before
CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, b int NOT NULL, v int);
CREATE UNIQUE INDEX t_ab ON t (b, a);
ALTER TABLE t REPLICA IDENTITY USING INDEX t_ab;
INSERT INTO t SELECT g, 'a' || g % 3, g, 0 FROM generate_series(1, 9) g;

-- history
UPDATE t SET v = 1; UPDATE t SET id = id + 100 WHERE id < 4; UPDATE t SET a = 'moved' WHERE b = 5; UPDATE t SET id = 1, b = 50 WHERE b = 5; DELETE FROM t WHERE b = 9;
