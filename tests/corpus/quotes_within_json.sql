-- Quotes, backslashes and braces within values must not end them (pgcopydb 331, 366, 354, 471).

-- before
CREATE TABLE t (id text PRIMARY KEY, a text[], j jsonb, r json);

-- history
INSERT INTO t VALUES ('"', ARRAY['"', '\', ',', NULL, 'NULL', '{}'], '{"a": "\"\\", "b": [null, "\u00e9\ud83d\ude00"]}', '{"a" :  1, "a" : 2}'),
 ('\', '{}', '"\\n"', 'null'), ('{"action":"C"}', '{{a,b},{c,d}}', '1e400', '"\u0041"'), ('","value":"x"}],"identity":[{', NULL, 'true', '[]');

UPDATE t SET id = id || '"}', j = '{"name":"x","value":null}'; UPDATE t SET r = to_json(id), a = CASE WHEN array_ndims(a) = 2 THEN a ELSE a || '"}'::text END;

DELETE FROM t WHERE id LIKE '\\%';
