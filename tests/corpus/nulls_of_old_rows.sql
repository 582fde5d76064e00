-- test_decoding writes old rows without their NULLs: a row that is known by all its columns was taken for any that has the others, and the
-- first of them deleted.

-- before
CREATE TABLE f (a int, b text, c int);
ALTER TABLE f REPLICA IDENTITY FULL;
INSERT INTO f VALUES (1, 'x', 5), (1, 'x', NULL), (1, NULL, 5), (1, NULL, NULL), (NULL, NULL, NULL), (NULL, 'x', NULL);

-- history
DELETE FROM f WHERE a = 1 AND b IS NULL AND c IS NULL;

UPDATE f SET c = 6 WHERE b = 'x' AND c IS NULL AND a = 1;

DELETE FROM f WHERE a IS NULL AND b IS NULL;

UPDATE f SET a = 2 WHERE a IS NULL; DELETE FROM f WHERE c IS NULL;
