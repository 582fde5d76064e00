-- wal2json writes booleans and NULL bare: a template that was made of one must take the other.

-- before
CREATE TABLE t (id int PRIMARY KEY, b bool, c bool NOT NULL, n int, v text);

-- history
INSERT INTO t VALUES (1, true, false, 1, 't'), (2, NULL, true, NULL, NULL), (3, false, true, -1, 'false'), (4, true, true, 0, 'null'), (5, NULL, false, 5, 'true');

UPDATE t SET b = NOT b, c = NOT c; UPDATE t SET n = NULL, v = NULL WHERE id < 3; UPDATE t SET n = 2, v = '' WHERE n IS NULL;
