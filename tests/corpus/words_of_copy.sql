-- Texts that COPY would read as NULL, as its end, or as a separator.

-- before
CREATE TABLE t (id int PRIMARY KEY, v text, w text);

-- history
INSERT INTO t VALUES (1, '\N', NULL), (2, '\.', ''), (3, E'\t', E'\n'), (4, E'\r\n', '\'), (5, 'NULL', 'null'), (6, E'\x01\x02\x1f', E'\x7f');

UPDATE t SET v = '\\N', w = E'a\tb' WHERE id = 1; UPDATE t SET v = E'\\.\n' WHERE id = 2; UPDATE t SET w = NULL WHERE id = 6;

INSERT INTO t SELECT 100 + g, repeat('\', g), repeat('"', g) FROM generate_series(1, 9) g; UPDATE t SET v = w, w = v;
