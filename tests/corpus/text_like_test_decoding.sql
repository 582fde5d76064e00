-- Names, types and values that look like the text of test_decoding, which other readers of it take apart at the wrong places: colons,
-- brackets, quotes, its own words.

-- before
CREATE TYPE "a]: b[" AS ENUM ('x''y', ' z[text]:''q''');
CREATE DOMAIN "int[]" AS integer[];
CREATE TABLE "a: INSERT: b[text]" ("k]:1" int PRIMARY KEY, "old-key:" text, "new-tuple: x" "a]: b["[], "table" "int[]", "q""q" timestamptz);
CREATE TABLE other (id text PRIMARY KEY, b bit(3), v varbit, n text, ok boolean);

-- history
INSERT INTO "a: INSERT: b[text]" VALUES (1, 'unchanged-toast-datum', '{"x''y"}', '{1,2}', now()), (2, ''' new-tuple: c[text]:''x''', NULL, NULL, NULL);

INSERT INTO other VALUES ('null', B'101', B'', '(no-tuple-data)', true), ('', NULL, B'1', '''', NULL), (' x[integer]:1', B'000', NULL, NULL, false);

UPDATE "a: INSERT: b[text]" SET "k]:1" = "k]:1" + 10; UPDATE other SET id = id || '''', n = n || '''''';

DELETE FROM "a: INSERT: b[text]" WHERE "old-key:" LIKE 'unchanged%'; DELETE FROM other WHERE ok;
