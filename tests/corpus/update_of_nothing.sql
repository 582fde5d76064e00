-- An UPDATE that changes nothing but a large value that is not sent leaves no column to set (pgcopydb 883).

-- before
CREATE TABLE t (id int PRIMARY KEY, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t VALUES (1, repeat('z', 9000));

-- history
UPDATE t SET id = id;

UPDATE t SET big = big; UPDATE t SET id = 2; UPDATE t SET id = 1;
