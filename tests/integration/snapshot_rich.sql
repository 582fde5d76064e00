-- One of everything that a schema can hold, for the tests of the base copy. Run by the role "app", owner of the database.
CREATE SCHEMA shop;
CREATE SCHEMA "Odd ""Schema"" ünï" AUTHORIZATION "Sales Team";
CREATE EXTENSION citext;
CREATE EXTENSION btree_gist;
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE shop.address AS (street text, zip varchar(10), numbers int[]);
CREATE DOMAIN shop.email AS text CHECK (VALUE LIKE '%@%');
CREATE DOMAIN shop.moody AS shop.mood DEFAULT 'ok';
CREATE SEQUENCE shop.counter INCREMENT 5 START 100 CYCLE;
SELECT nextval('shop.counter'), nextval('shop.counter');
CREATE SEQUENCE shop.unused START 7;

CREATE TABLE shop.customer (
    total numeric GENERATED ALWAYS AS (a + b) STORED, id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL COLLATE "C", mood shop.mood DEFAULT 'ok',
    email shop.email, tags text[], prices numeric(10,2)[], a numeric DEFAULT 1, b numeric DEFAULT 2, doc jsonb, raw bytea, uid uuid DEFAULT '00000000-0000-0000-0000-000000000001',
    made timestamptz DEFAULT '2020-02-02 02:02:02.123456+02', span interval, f4 float4, f8 float8, net inet, cash money, during tstzrange, feel shop.moody);
INSERT INTO shop.customer (name, mood, email, tags, prices, doc, raw, span, f4, f8, net, cash, during)
SELECT E'name\t\\ ' || i || E'\nline', (ARRAY['sad', 'ok', 'happy'])[i % 3 + 1]::shop.mood, 'c' || i || '@x', ARRAY['a,b', NULL, '"q"'], ARRAY[i, NULL, 1.50],
       jsonb_build_object('i', i, 'ü', 'é'), decode(md5(i::text), 'hex'), make_interval(months => i, secs => 0.5), i / 3.0, i / 7.0, '10.0.0.1/24', i, tstzrange(now(), NULL)
  FROM generate_series(1, 500) i;
INSERT INTO shop.customer (name, a, f4, f8) VALUES ('', 'NaN', 'NaN', '-Infinity'), ('nulls', NULL, '-0', '1e-300');
CREATE INDEX customer_name ON shop.customer (lower(name) text_pattern_ops) WHERE mood <> 'sad';
CREATE INDEX customer_doc ON shop.customer USING gin (doc jsonb_path_ops);
CREATE UNIQUE INDEX customer_email ON shop.customer (email) INCLUDE (mood);
ALTER TABLE shop.customer CLUSTER ON customer_pkey;
CREATE INDEX customer_expr ON shop.customer ((a * b), id DESC NULLS LAST) WITH (fillfactor = 70);
ALTER INDEX shop.customer_expr ALTER COLUMN 1 SET STATISTICS 500;
COMMENT ON TABLE shop.customer IS 'people; who "buy"';
COMMENT ON COLUMN shop.customer.name IS 'it''s';
COMMENT ON INDEX shop.customer_doc IS 'index comment';
COMMENT ON CONSTRAINT customer_pkey ON shop.customer IS 'key comment';
ALTER TABLE shop.customer ALTER COLUMN raw SET STORAGE EXTERNAL, ALTER COLUMN doc SET STATISTICS 42;
CREATE STATISTICS shop.cross_columns (dependencies, ndistinct) ON mood, a FROM shop.customer;

CREATE TABLE shop.orders (
    id int NOT NULL, day date NOT NULL, customer bigint REFERENCES shop.customer DEFERRABLE INITIALLY DEFERRED, amount numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE shop.orders_2020 PARTITION OF shop.orders FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE shop.orders_2021 PARTITION OF shop.orders FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY HASH (id);
CREATE TABLE shop.orders_2021_0 PARTITION OF shop.orders_2021 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.orders_2021_1 PARTITION OF shop.orders_2021 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE shop.orders_rest PARTITION OF shop.orders DEFAULT;
CREATE INDEX orders_amount ON shop.orders (amount);
CREATE INDEX only_2020 ON shop.orders_2020 (customer);
INSERT INTO shop.orders SELECT i, date '2020-01-01' + i, i % 500 + 1, i FROM generate_series(1, 1500) i;
CREATE TABLE shop.order_notes (order_id int, day date, note text, FOREIGN KEY (order_id, day) REFERENCES shop.orders ON DELETE CASCADE);
INSERT INTO shop.order_notes SELECT id, day, 'n' FROM shop.orders WHERE id % 100 = 0;

CREATE TABLE shop.parent (id int PRIMARY KEY, note text CHECK (note <> 'bad'));
CREATE TABLE shop.child (extra int) INHERITS (shop.parent);
INSERT INTO shop.parent VALUES (1, 'p');
INSERT INTO shop.child VALUES (1, 'c', 2), (2, 'c', 3);
CREATE TABLE shop.odd (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, addr shop.address, moods shop.mood[], kind regclass, ci citext, doc xml, ranges int4range[]);
INSERT INTO shop.odd VALUES (1, ROW('street "1"', NULL, '{1,2}'), '{sad,happy}', 'shop.customer', 'CaSe', '<a>é</a>', '{"[1,2)",empty}');
CREATE TABLE shop.booking (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO shop.booking SELECT i, tsrange('2020-01-01', '2020-01-02') FROM generate_series(1, 10) i;
CREATE TABLE shop.unique_twice (a int, b int, CONSTRAINT ab UNIQUE (a, b) DEFERRABLE, CONSTRAINT "b only" UNIQUE (b) INCLUDE (a));
INSERT INTO shop.unique_twice VALUES (1, 1), (NULL, 2);
CREATE TABLE shop.by_index (k int NOT NULL, v text);
CREATE UNIQUE INDEX by_index_k ON shop.by_index (k);
ALTER TABLE shop.by_index REPLICA IDENTITY USING INDEX by_index_k;
CREATE TABLE shop.full_identity (k int);
ALTER TABLE shop.full_identity REPLICA IDENTITY FULL;
INSERT INTO shop.full_identity VALUES (1), (1);
CREATE TABLE shop.empty (id serial PRIMARY KEY);
CREATE TABLE shop.no_columns ();
INSERT INTO shop.no_columns DEFAULT VALUES;
INSERT INTO shop.no_columns DEFAULT VALUES;
CREATE TABLE shop.only_generated (g int GENERATED ALWAYS AS (7) STORED);
INSERT INTO shop.only_generated DEFAULT VALUES;
CREATE UNLOGGED TABLE shop.scratch (id int PRIMARY KEY);
INSERT INTO shop.scratch VALUES (1);
CREATE TABLE shop.dropped (a int, b text, c int);
INSERT INTO shop.dropped VALUES (1, 'b', 2);
ALTER TABLE shop.dropped DROP COLUMN b;
CREATE TABLE shop.not_checked (customer bigint);
INSERT INTO shop.not_checked VALUES (-1);
ALTER TABLE shop.not_checked ADD CONSTRAINT lazy FOREIGN KEY (customer) REFERENCES shop.customer NOT VALID;
CREATE TABLE shop.self (id int PRIMARY KEY, up int REFERENCES shop.self);
COMMENT ON CONSTRAINT self_up_fkey ON shop.self IS 'of a foreign key'; COMMENT ON CONSTRAINT lazy ON shop.not_checked IS 'of one that is not valid';
COMMENT ON CONSTRAINT orders_customer_fkey ON shop.orders IS 'of one of a partitioned table';
INSERT INTO shop.self VALUES (1, 2), (2, 1);

CREATE TABLE "Odd ""Schema"" ünï"."Table with 'quotes' and spaces; --" ("Column ""x""" int PRIMARY KEY, "select" text, "ü%s" int);
INSERT INTO "Odd ""Schema"" ünï"."Table with 'quotes' and spaces; --" SELECT i, 'ß' || i, i FROM generate_series(1, 50) i;
CREATE INDEX "Index; INDEX ""y""" ON "Odd ""Schema"" ünï"."Table with 'quotes' and spaces; --" ("ü%s");
ALTER TABLE "Odd ""Schema"" ünï"."Table with 'quotes' and spaces; --" OWNER TO "Sales Team";

CREATE TABLE shop.secret (id int PRIMARY KEY, owner name DEFAULT current_user);
INSERT INTO shop.secret VALUES (1, 'app'), (2, 'other');
ALTER TABLE shop.secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.secret FOR SELECT TO reader, "Sales Team" USING (owner = current_user);
COMMENT ON POLICY mine ON shop.secret IS 'policy comment';

CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON shop.customer FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION shop.touch();
CREATE TRIGGER always AFTER INSERT ON shop.empty FOR EACH STATEMENT EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.empty ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER off AFTER DELETE ON shop.empty FOR EACH STATEMENT EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.empty DISABLE TRIGGER off;
CREATE PROCEDURE shop.nothing(INOUT x int) LANGUAGE sql AS $$ SELECT x + 1 $$;
CREATE FUNCTION shop.later(i int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM shop.customer WHERE id > i';
CREATE AGGREGATE shop.mysum (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE VIEW shop.happy AS SELECT id, name FROM shop.customer WHERE mood = 'happy';
CREATE VIEW shop.grouped AS SELECT c.id, c.name, count(*) AS n FROM shop.customer c JOIN shop.orders o ON o.customer = c.id GROUP BY c.id;
CREATE MATERIALIZED VIEW shop.b_totals AS SELECT customer, sum(amount) AS amount FROM shop.orders GROUP BY 1;
CREATE MATERIALIZED VIEW shop.a_top AS SELECT * FROM shop.b_totals WHERE amount > 100;
CREATE UNIQUE INDEX a_top_customer ON shop.a_top (customer);
CREATE MATERIALIZED VIEW shop.never AS SELECT 1 AS one WITH NO DATA;
CREATE RULE no_delete AS ON DELETE TO shop.booking DO INSTEAD NOTHING;
GRANT USAGE ON SCHEMA shop TO reader;
GRANT SELECT ON shop.customer, shop.happy TO reader;
GRANT UPDATE (name) ON shop.customer TO "Sales Team" WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION shop.later(int) TO reader;
REVOKE EXECUTE ON FUNCTION shop.later(int) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO reader;
CREATE PUBLICATION some_tables FOR TABLE shop.customer;
SELECT lo_from_bytea(70001, 'first'), lo_from_bytea(70002, decode(repeat('00ff', 100000), 'hex')), lo_create(70003);
COMMENT ON LARGE OBJECT 70001 IS 'an image';
GRANT SELECT ON LARGE OBJECT 70001 TO reader;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
