-- Types made of others, with their own quotes within those of the plugin.

-- before
CREATE TYPE pair AS (a text, b int[]);
CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[], r tstzrange, m int4range[], i int4range, c "char", y money, bits varbit);

-- history
INSERT INTO t VALUES (1, ROW('"(,)\', ARRAY[1, NULL]), ARRAY[ROW(NULL, '{}')::pair, ROW('', NULL)::pair], '[2026-01-01,)', ARRAY['empty', '[1,5)']::int4range[], '(,3)', 'x', 12.34, B'1011'),
 (2, NULL, '{}', 'empty', NULL, NULL, '', -0.01, ''), (3, ROW(NULL, NULL), NULL, '(,)', '{}', 'empty', '\', 92233720368547758.07, B'0');

UPDATE t SET p.a = 'changed', bits = bits || B'1' WHERE id = 1; UPDATE t SET ps = ARRAY[p, p] WHERE id = 3;
