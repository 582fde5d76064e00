-- NaN and Infinity have no place in JSON; wal2json without numeric-data-types-as-string writes null for them, which plugin: auto avoids.
-- Needs a plugin that writes them.

-- before
CREATE TABLE n (id numeric PRIMARY KEY, f float8, g float4);
CREATE TABLE f (id float8 PRIMARY KEY, n numeric);

-- history
INSERT INTO n VALUES ('NaN', 'NaN', 'NaN'), (1, 'Infinity', '-Infinity'), (2, '-Infinity', 'Infinity');

INSERT INTO f VALUES ('NaN', 'NaN'), ('Infinity', 1), ('-Infinity', 2), ('-0', 3);

UPDATE n SET f = 1 WHERE id = 'NaN'; UPDATE n SET id = id + 10; UPDATE f SET n = 4; UPDATE f SET id = 5 WHERE id = 'Infinity';

DELETE FROM n WHERE id = 'NaN'; DELETE FROM f WHERE id = 'NaN';
