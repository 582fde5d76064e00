-- wal2json tells the relations of one TRUNCATE one by one, all at one position; the foreign key between them allows no other way.
-- From PostgreSQL 11 on.

-- before
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
INSERT INTO a VALUES (1), (2);
INSERT INTO b VALUES (1, 1), (2, 2);

-- history
TRUNCATE a, b; INSERT INTO a VALUES (3);

TRUNCATE a CASCADE;

INSERT INTO a VALUES (4); INSERT INTO b VALUES (4, 4); TRUNCATE b; INSERT INTO b VALUES (5, 4);
