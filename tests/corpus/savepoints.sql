-- What was rolled back to a savepoint is not in the stream; what came after is.

-- before
CREATE TABLE t (id int PRIMARY KEY, v text);

-- history
INSERT INTO t VALUES (1, 'kept'); SAVEPOINT a; INSERT INTO t VALUES (2, 'lost'); SAVEPOINT b; UPDATE t SET v = 'lost' WHERE id = 1; ROLLBACK TO a; INSERT INTO t VALUES (2, 'kept'); RELEASE a;

SAVEPOINT a; DELETE FROM t; ROLLBACK TO a;

SAVEPOINT a; TRUNCATE t; ROLLBACK TO a; UPDATE t SET v = v || '!';
