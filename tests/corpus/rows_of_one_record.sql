-- All rows of a COPY or of a multi-row INSERT have one position in the WAL; none may take the place of another.

-- before
CREATE TABLE t (id int PRIMARY KEY, v text);

-- history
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 2000) g;

INSERT INTO t VALUES (3001, 'a'), (3002, 'b'), (3003, 'c'), (3004, 'd');
