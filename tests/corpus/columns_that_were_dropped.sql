-- Attribute numbers have holes on the source that the target need not have.

-- before
CREATE TABLE t (a int, b int, id int PRIMARY KEY, c text, d text DEFAULT 'd');
ALTER TABLE t DROP b, ADD e int DEFAULT 5, DROP a;
INSERT INTO t (id, c) VALUES (1, 'c');

-- history
INSERT INTO t (id, c) VALUES (2, 'x'), (3, NULL); UPDATE t SET e = 6, d = NULL WHERE id = 1; DELETE FROM t WHERE id = 2;
