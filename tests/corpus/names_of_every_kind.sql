-- Names with quotes, spaces, dots, backslashes, other scripts, and reserved words.

-- before
CREATE TABLE "A table. with "" all, of \ it *" ("key ""part" int, "select" text, "üж ☃" int, PRIMARY KEY ("key ""part", "select"));
CREATE TABLE "user" ("order" int PRIMARY KEY, "group" text);

-- history
INSERT INTO "A table. with "" all, of \ it *" VALUES (1, 'x', 1), (2, 'y', 2);

UPDATE "A table. with "" all, of \ it *" SET "üж ☃" = 9, "select" = 'z' WHERE "key ""part" = 1; DELETE FROM "A table. with "" all, of \ it *" WHERE "select" = 'y';

INSERT INTO "user" VALUES (1, 'a'), (2, 'b'); UPDATE "user" SET "order" = 3 WHERE "order" = 2;
