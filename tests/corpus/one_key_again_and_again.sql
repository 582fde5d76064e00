-- Insert, delete and insert of one key in one batch: only the last is left, and all are counted.

-- before
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t);

-- history
INSERT INTO t VALUES (1, 1); DELETE FROM t; INSERT INTO t VALUES (1, 2); UPDATE t SET v = 3; INSERT INTO child VALUES (1, 1);

DELETE FROM child; DELETE FROM t; INSERT INTO t VALUES (1, 4), (2, 5); INSERT INTO child VALUES (1, 2); UPDATE child SET t = 1; DELETE FROM t WHERE id = 2;
