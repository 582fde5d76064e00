-- Copyright (c) 2026, the pgops.migration authors
-- SPDX-License-Identifier: BSD-2-Clause
-- The shop's roles; run by a superuser. "app" owns the database and is there already.
CREATE ROLE shop_reader NOLOGIN;
CREATE ROLE shop_clerk NOLOGIN;
CREATE ROLE shop_web LOGIN CONNECTION LIMIT 20;
COMMENT ON ROLE shop_web IS 'the web shop';
GRANT shop_reader TO shop_clerk;
GRANT shop_clerk TO shop_web;
GRANT shop_reader, shop_clerk TO app;
ALTER ROLE shop_web SET statement_timeout = '30s';
