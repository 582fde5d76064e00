-- Triggers (ENABLE ALWAYS among them) and rules of the target have fired on the source already.

-- before
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE log (id serial PRIMARY KEY, v int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO corpus_triggers_and_rules_rest.log (v) VALUES (NEW.v); NEW.v := NEW.v + 1; RETURN NEW; END $$;
CREATE TRIGGER a BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE note();
CREATE TRIGGER b BEFORE UPDATE ON t FOR EACH ROW EXECUTE PROCEDURE note();
ALTER TABLE t ENABLE ALWAYS TRIGGER b;
CREATE TABLE ruled (id int PRIMARY KEY);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO corpus_triggers_and_rules_rest.log (v) VALUES (-1);

-- history
INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t SET v = 10 WHERE id = 1; INSERT INTO ruled VALUES (1), (2);
