-- A row that moves to another partition is deleted in one and inserted in the other; a parent of inheritance has rows of its own.

-- From PostgreSQL 11 on (default partitions).
-- before
CREATE TABLE p (id int, part int, v text, PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (v text, part int NOT NULL, id int NOT NULL, PRIMARY KEY (part, id));
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
CREATE TABLE pd PARTITION OF p DEFAULT PARTITION BY RANGE (id);
CREATE TABLE pd1 PARTITION OF pd FOR VALUES FROM (0) TO (100);
CREATE TABLE pd2 PARTITION OF pd DEFAULT;
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE heir (more int, PRIMARY KEY (id)) INHERITS (parent);

-- history
INSERT INTO p SELECT g, g % 4, 'v' || g FROM generate_series(1, 40) g; INSERT INTO p VALUES (500, 9, 'far');

UPDATE p SET part = 2 WHERE part = 1 AND id < 20; UPDATE p SET part = 3, v = 'moved' WHERE part = 2 AND id > 30; UPDATE p SET id = id + 100 WHERE part = 3; DELETE FROM p WHERE part = 0;

INSERT INTO parent VALUES (1, 'p'); INSERT INTO heir VALUES (2, 'h', 3); UPDATE parent SET v = v || '!'; TRUNCATE p1; TRUNCATE ONLY parent;
