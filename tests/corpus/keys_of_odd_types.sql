-- Keys of types whose text is not their own equality, or that can be written in several ways.

-- before
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE DOMAIN code AS text CHECK (value <> '');
CREATE TABLE n (id numeric PRIMARY KEY, v int);
CREATE TABLE m (id mood, c code, d date, PRIMARY KEY (c, id, d));
CREATE TABLE f (id float8 PRIMARY KEY, v int);
CREATE TABLE s (id timestamptz, i interval, PRIMARY KEY (id, i));
CREATE TABLE b (id bytea, u uuid, c char(5), PRIMARY KEY (id, u, c));

-- history
INSERT INTO n VALUES (1.0, 1), (2.50, 2), (3e30, 3); UPDATE n SET v = v + 1; UPDATE n SET id = 1.00 WHERE id = 1; DELETE FROM n WHERE id = 3e30;

INSERT INTO m VALUES ('sad', 'a', '0044-03-15 BC'), ('it''s "ok"', 'b''', 'infinity'); UPDATE m SET d = d; UPDATE m SET id = 'sad'; DELETE FROM m WHERE c = 'a';

INSERT INTO f VALUES ('-0', 1), (0.1, 2), (1e308, 3), (5e-324, 4); UPDATE f SET v = -v; UPDATE f SET id = 0 WHERE id = 0; DELETE FROM f WHERE id = 5e-324;

INSERT INTO s VALUES ('2026-03-29 02:30 UTC', '1 mon -1 day +25:00:00.000001'), ('-infinity', '24:00'); UPDATE s SET i = '1 day' WHERE i = '24:00'; DELETE FROM s WHERE id > '2000-01-01';

INSERT INTO b VALUES ('\x00ff5c', '00000000-0000-0000-0000-000000000001', 'a'), ('', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'b '); UPDATE b SET c = 'z'; DELETE FROM b WHERE id = '';
