-- Copyright (c) 2026, the pgops.migration authors
-- SPDX-License-Identifier: BSD-2-Clause
-- The tables that the writers of tests/workload.py keep changing; run by the owner of the database.
SET client_min_messages = warning;
CREATE SCHEMA workload;
SET search_path = workload;
-- One row for each transaction of a writer, in that transaction.
CREATE TABLE commits (writer int, seq bigint, kind text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (writer, seq));
-- The sum of all balances never changes.
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, label text);
INSERT INTO account SELECT i, 1000, 'account ' || i FROM generate_series(1, 500) i;
-- Keys that move, are removed and come back; a second unique column whose values are exchanged.
CREATE TABLE item (
    id bigint PRIMARY KEY, code text UNIQUE DEFERRABLE INITIALLY DEFERRED, version int NOT NULL, doubled int GENERATED ALWAYS AS (version * 2) STORED,
    stamped timestamptz);
INSERT INTO item (id, code, version) SELECT w * 1000000 + i, 'c' || w || '-' || i, 0 FROM generate_series(0, 63) w, generate_series(1, 20) i;
-- Large values that most updates do not touch.
CREATE TABLE document (id int PRIMARY KEY, body text NOT NULL, extra jsonb, version int NOT NULL);
ALTER TABLE document ALTER body SET STORAGE EXTERNAL;
INSERT INTO document SELECT i, repeat(md5(i::text), 300), jsonb_build_object('i', i), 0 FROM generate_series(1, 100) i;
-- Truncated together and filled again.
CREATE TABLE scratch_a (id int PRIMARY KEY, note text);
CREATE TABLE scratch_b (id int PRIMARY KEY, a int REFERENCES scratch_a, note text);
INSERT INTO scratch_a SELECT i, 'a' || i FROM generate_series(1, 50) i;
INSERT INTO scratch_b SELECT i, i, 'b' || i FROM generate_series(1, 50) i;
-- Filled by COPY.
CREATE TABLE bulk (writer int, seq bigint, line int, word text, number numeric, PRIMARY KEY (writer, seq, line));
-- No key: found by its whole row.
CREATE TABLE journal (writer int, word text, number double precision, at timestamp);
ALTER TABLE journal REPLICA IDENTITY FULL;
CREATE TABLE queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int, payload bytea);
RESET search_path;
