-- Rows before and behind a column that both sides were given, and one that was widened on the target alone.

-- before
CREATE TABLE t (id int PRIMARY KEY, v varchar(10), n int);
INSERT INTO t VALUES (1, 'a', 1);

-- history
INSERT INTO t (n, v, id) VALUES (2, 'b', 2);

UPDATE t SET (v, n) = ('c', 3) WHERE id = 1; INSERT INTO t (id) VALUES (3);
